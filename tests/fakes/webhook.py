"""A receiver of push notifications: an HTTP server that remembers what it got, and answers as it is told."""

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Got:
    method: str
    path: str
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Reaction:
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    drops: bool = False
    """Cut the connection without an answer."""
    holds: bool = False
    """Answer after `release`."""
    endless: bool = False
    """Go on with the body for ever."""


class Receiver:
    """`async with`; answers 204 where it was told nothing."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.got: list[Got] = []
        self.connections = 0
        self._reactions: deque[Reaction] = deque()
        self._news = asyncio.Condition()
        self._released = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    def react(self, *reactions: Reaction) -> None:
        """To the next calls."""
        self._reactions.extend(reactions)

    def release(self) -> None:
        """Whoever is held gets an answer, from now on."""
        self._released.set()

    async def until(self, count: int) -> list[Got]:
        """What it got, when that are so many."""
        return await self.until_true(lambda got: len(got) >= count)

    async def until_true(self, enough: Callable[[list[Got]], bool]) -> list[Got]:
        async with self._news:
            await self._news.wait_for(lambda: enough(self.got))
        return self.got

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while got := await _read(reader):
                async with self._news:
                    self.got.append(got)
                    self._news.notify_all()
                await self._answer(writer, self._reactions.popleft() if self._reactions else Reaction())
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # its caller has left
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, reaction: Reaction) -> None:
        if reaction.holds:
            await self._released.wait()
        if reaction.drops:
            writer.transport.abort()
            raise ConnectionAbortedError
        length = (
            {} if reaction.endless or reaction.status == 204 else {"content-length": str(len(reaction.body))}
        )
        head = [f"HTTP/1.1 {reaction.status} Whatever"]
        head += [f"{name}: {value}" for name, value in {**length, **reaction.headers}.items()]
        writer.write("\r\n".join([*head, "", ""]).encode() + reaction.body)
        await writer.drain()
        while reaction.endless:
            writer.write(b"x" * 10_000)
            await writer.drain()
            await asyncio.sleep(0)


async def _read(reader: asyncio.StreamReader) -> Got | None:
    first = await reader.readline()
    if not first:
        return None
    method, path, _ = first.decode().split()
    headers = {}
    while line := (await reader.readline()).decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Got(method, path, headers, body)
