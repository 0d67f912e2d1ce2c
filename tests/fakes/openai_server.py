"""A server that speaks OpenAI's chat completions over HTTP/1.1 and knows only what it is sent.

In a test: `async with FakeOpenAI() as fake:`. For another process, `python -m tests.fakes.openai_server`
prints its URL and runs until its standard input ends; it is told what to do over HTTP:

    POST /control                 queue answers: {"times": 2, "behaviour": {"status": 429}}, see `Behaviour`
    POST /release                 let go of what `hold` or `hold_after` holds
    GET  /requests?at_least=N     the bodies of all requests so far, in order, once there are N
    GET  /held?at_least=N         {"count": ...}: how many answers have begun to wait, once there are N
    GET  /disconnects?at_least=N  {"count": ...}: how many clients left too early, once there are N

Without a behaviour it answers at once by the rule of `hector.llm.scripted.recalled`, and where JSON is wanted
by that of `noted`.
"""

import argparse
import asyncio
import json
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from hector.llm.scripted import noted, recalled


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How one request is answered. All is optional."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    """Sent as it is (JSON, or a string as it stands) in place of an answer."""
    text: str | None = None
    """The answer, in place of what is recalled."""
    thinking: str | None = None
    """Sent before the text, as `reasoning_content`."""
    calls: Sequence[Mapping[str, str]] = ()
    """Tool calls: `name`, `arguments`, and an `id` if it matters."""
    finish_reason: str | None = None
    chunks: int = 1
    """Into how many pieces a streamed text is cut."""
    pause: float = 0.0
    """Seconds between them."""
    hold: bool = False
    """Send nothing until released."""
    hold_after: int | None = None
    """Stream this many pieces, and then nothing until released."""
    drop_after: int | None = None
    """Stream this many pieces, then reset the connection."""
    end_after: int | None = None
    """Stream this many pieces, then end the body in good order, as if that were all."""
    error_after: int | None = None
    """Stream this many pieces, then send `body` as an error event."""
    usage: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Any


class FakeOpenAI:
    """`url` is what an OpenAI client takes for its base URL."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._behaviours: deque[Behaviour] = deque()
        self._released = asyncio.Event()
        self._changed = asyncio.Condition()
        self.requests: list[Request] = []
        """For completions, in order of arrival."""
        self.disconnects = 0
        self.held = 0
        """How many answers have begun to wait for a release."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for client in list(self._clients):
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def origin(self) -> str:
        return f"http://{self._host}:{self._port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def bodies(self) -> list[Any]:
        return [request.body for request in self.requests]

    def behave(self, *behaviours: Behaviour) -> None:
        """For the next requests, one each."""
        self._behaviours.extend(behaviours)

    def release(self) -> None:
        self._released.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something of `requests`, `held` or `disconnects`."""
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            while (request := await _read_request(reader)) is not None:
                await self._serve(request, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # Nobody but `__aexit__` cancels, and asyncio.streams logs a handler that says so.
            pass
        finally:
            self._clients.discard(task)
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        url = urlsplit(request.target)
        at_least = int(parse_qs(url.query).get("at_least", ["0"])[0])
        match request.method, url.path:
            case "POST", "/v1/chat/completions":
                behaviour = self._behaviours.popleft() if self._behaviours else Behaviour()
                self.requests.append(request)
                await self._notify()
                await self._answer_or_see_client_go(request.body, behaviour, reader, writer)
            case "GET", "/v1/models":
                _send(writer, 200, {"object": "list", "data": [{"id": "fake", "object": "model"}]})
            case "POST", "/control":
                self.behave(*[Behaviour(**request.body["behaviour"])] * request.body.get("times", 1))
                _send(writer, 200, {})
            case "POST", "/release":
                self.release()
                _send(writer, 200, {})
            case "GET", "/requests":
                await self.until(lambda: len(self.requests) >= at_least)
                _send(writer, 200, self.bodies)
            case "GET", "/held":
                await self.until(lambda: self.held >= at_least)
                _send(writer, 200, {"count": self.held})
            case "GET", "/disconnects":
                await self.until(lambda: self.disconnects >= at_least)
                _send(writer, 200, {"count": self.disconnects})
            case _:
                _send(writer, 404, {"error": {"message": "no such path", "type": "invalid_request_error"}})
        await writer.drain()

    async def _answer_or_see_client_go(
        self, body: Any, behaviour: Behaviour, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if not (behaviour.hold or behaviour.hold_after is not None or behaviour.pause):
            await self._answer(body, behaviour, writer)
            return
        answer = asyncio.create_task(self._answer(body, behaviour, writer))
        # No client of this protocol sends anything before it has its answer.
        gone = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            left = not answer.done()
            answer.cancel()
            gone.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)
        if left:
            self.disconnects += 1
            await self._notify()
            raise ConnectionResetError

    async def _answer(self, body: Any, behaviour: Behaviour, writer: asyncio.StreamWriter) -> None:
        if behaviour.hold:
            await self._hold()
        if behaviour.body is not None and behaviour.error_after is None:
            _send(writer, behaviour.status, behaviour.body, behaviour.headers)
        elif behaviour.status != 200:
            error = {"error": {"message": "the fake was told to fail", "type": "fake_error", "code": None}}
            _send(writer, behaviour.status, error, behaviour.headers)
        elif body.get("stream"):
            await self._stream(body, behaviour, writer)
        else:
            _send(writer, 200, _completion(body, behaviour))

    async def _stream(self, body: Any, behaviour: Behaviour, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for sent, chunk in enumerate(_stream_chunks(body, behaviour)):
            if sent == behaviour.drop_after:
                await writer.drain()
                writer.transport.abort()
                raise ConnectionResetError
            if sent == behaviour.hold_after:
                await self._hold()
            if sent == behaviour.error_after:
                _write_event(writer, json.dumps(behaviour.body))
                break
            if sent == behaviour.end_after:
                break
            _write_event(writer, chunk)
            if behaviour.pause:
                await asyncio.sleep(behaviour.pause)
        else:
            _write_event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")

    async def _hold(self) -> None:
        self._released.clear()
        self.held += 1
        await self._notify()
        await self._released.wait()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    """None at the end of the connection."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    request_line, *lines = head.split("\r\n")
    method, target, _ = request_line.split(" ")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, json.loads(raw) if raw else None)


def _send(
    writer: asyncio.StreamWriter, status: int, body: Any, headers: Mapping[str, str] | None = None
) -> None:
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    fields = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"HTTP/1.1 {status} Fake\r\n{head}\r\n".encode() + content)


def _write_event(writer: asyncio.StreamWriter, data: str) -> None:
    event = f"data: {data}\n\n".encode()
    writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")


def answer_to(messages: Sequence[Mapping[str, Any]]) -> str:
    """Made of these messages and nothing else."""
    last = messages[-1]
    if last["role"] == "tool":
        return f"The tool said: {_text(last)}"
    return recalled([_text(message) for message in messages if message["role"] == "user"])


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


def _said(body: Any, behaviour: Behaviour) -> str:
    if behaviour.text is not None or behaviour.calls:
        return behaviour.text or ""
    if "response_format" in body:
        return noted(_text(body["messages"][-1]))
    return answer_to(body["messages"])


def _calls(behaviour: Behaviour) -> list[dict[str, Any]]:
    return [
        {
            "index": n,
            "id": call.get("id", f"call_{n}"),
            "type": "function",
            "function": {"name": call["name"], "arguments": call["arguments"]},
        }
        for n, call in enumerate(behaviour.calls)
    ]


def _finish_reason(behaviour: Behaviour) -> str:
    return behaviour.finish_reason or ("tool_calls" if behaviour.calls else "stop")


def _usage(body: Any, text: str) -> dict[str, int]:
    """Words for tokens."""
    asked = sum(len(_text(message).split()) for message in body["messages"])
    written = len(text.split())
    return {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written}


def _completion(body: Any, behaviour: Behaviour) -> dict[str, Any]:
    text = _said(body, behaviour)
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if behaviour.calls:
        message["tool_calls"] = _calls(behaviour)
    if behaviour.thinking is not None:
        message["reasoning_content"] = behaviour.thinking
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": _finish_reason(behaviour)}],
        **({"usage": _usage(body, text)} if behaviour.usage else {}),
    }


def _stream_chunks(body: Any, behaviour: Behaviour) -> list[str]:
    text = _said(body, behaviour)
    count = max(1, min(behaviour.chunks, len(text)))
    ends = [round(n * len(text) / count) for n in range(count + 1)]
    deltas: list[dict[str, Any]] = (
        [{"content": text[start:end]} for start, end in pairwise(ends)] if text else []
    )
    if behaviour.thinking is not None:
        deltas.insert(0, {"reasoning_content": behaviour.thinking})
    deltas += [{"tool_calls": [call]} for call in _calls(behaviour)]
    if deltas:
        deltas[0] = {"role": "assistant", **deltas[0]}
    chunks = [_chunk(body, [{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    chunks.append(_chunk(body, [{"index": 0, "delta": {}, "finish_reason": _finish_reason(behaviour)}]))
    if behaviour.usage and (body.get("stream_options") or {}).get("include_usage"):
        chunks.append(_chunk(body, [], usage=_usage(body, text)))
    return chunks


def _chunk(body: Any, choices: list[dict[str, Any]], **more: Any) -> str:
    return json.dumps(
        {
            "id": "chatcmpl-fake",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": body["model"],
            "choices": choices,
            **more,
        }
    )


async def _main(port: int) -> None:
    async with FakeOpenAI(port) as fake:
        print(fake.url, flush=True)
        # Whoever started it holds the other end: nothing is left running when they die.
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, default=0)
    asyncio.run(_main(arguments.parse_args().port))
