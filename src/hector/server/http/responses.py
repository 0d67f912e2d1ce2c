"""JSON and event streams as responses."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hector.domain.errors import HectorError
from hector.domain.messages import JsonValue
from hector.engine.defects import describe_defect
from hector.server.http.connection import CUT
from hector.server.statuses import error_body, error_headers, status_of

logger = logging.getLogger(__name__)

KEEP_ALIVE = 15.0
"""Seconds of silence after which a stream sends a comment, so that proxies keep it open."""

STALLED = 30.0
"""Seconds for which a client may take nothing of what it is sent."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would hold the events back
}


def to_json(value: Mapping[str, JsonValue] | list[JsonValue]) -> bytes:
    text = _ENCODER.encode(value)
    try:
        return text.encode()
    except UnicodeEncodeError:
        # A provider may cut a stream in the middle of a surrogate pair; escaped, its halves meet again.
        return json.dumps(value, separators=(",", ":")).encode()


def json_response(
    value: Mapping[str, JsonValue] | list[JsonValue],
    *,
    status: int = 200,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    return Response(to_json(value), status, headers or {"cache-control": "no-store"}, media_type)


def error_response(
    error: Exception, *, numeric: bool = False, media_type: str = "application/json"
) -> Response:
    return json_response(
        error_body(error, numeric=numeric),
        status=status_of(error).http,
        media_type=media_type,
        headers=error_headers(error),
    )


def error_event(error: Exception, *, numeric: bool = False) -> bytes:
    """An event of a type of its own, so that nobody takes it for news of a task."""
    return b"event: error\ndata: " + to_json(error_body(error, numeric=numeric)) + b"\n\n"


class EventStream(Response):
    """Server-sent events, each the JSON of one object; ends early, and quietly, when its client leaves.

    With the place in the stream, where an event has one, that a client names to go on from there.
    """

    def __init__(
        self,
        events: AsyncGenerator[tuple[str | None, Mapping[str, JsonValue]], None],
        *,
        broken: Callable[[Exception], bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        keep_alive: float = KEEP_ALIVE,
        stalled: float = STALLED,
    ) -> None:
        """`broken` writes the event that tells why no end will come."""
        super().__init__(None, 200, {**_STREAM_HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._events = events
        self._broken = broken or error_event
        self._keep_alive = keep_alive
        self._stalled = stalled
        self._sent = False
        """Something was sent since the last look."""
        self._sending_since: float | None = None
        """When the client was first sent what it does not take; None while it reads."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope.get("method") == "HEAD":  # whose connection nobody could use again before the end
            await self._events.aclose()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            while not (writing.done() or leaving.done()):
                await asyncio.wait(
                    (writing, leaving), timeout=self._keep_alive, return_when=asyncio.FIRST_COMPLETED
                )
                if self._sending_since is not None:
                    self._cut_if_stalled(scope)
                elif not (self._sent or writing.done() or leaving.done()):
                    await send({"type": "http.response.body", "body": b": keep-alive\n\n", "more_body": True})
                self._sent = False
        finally:
            writing.cancel()
            leaving.cancel()
            await asyncio.wait((writing, leaving))
        if not writing.cancelled():
            writing.result()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            try:
                async for place, event in events:
                    named = f"id: {place}\n".encode() if place else b""
                    await self._send(send, named + b"data: " + to_json(event) + b"\n\n")
            except Exception as error:  # noqa: BLE001 - whatever it is, the client is told that no end will come
                if not isinstance(error, HectorError):
                    # Not `exception`, which would log the error's text, that is perhaps a user's.
                    logger.error("a stream broke:\n%s", describe_defect(error))  # noqa: TRY400
                await self._send(send, self._broken(error))

    async def _send(self, send: Send, chunk: bytes) -> None:
        self._sending_since = time.monotonic()
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._sending_since = None
        self._sent = True

    def _cut_if_stalled(self, scope: Scope) -> None:
        """Its place is kept: the stream can be gone on with from the last event that the client has."""
        since = self._sending_since
        if CUT in scope and since is not None and time.monotonic() - since >= self._stalled:
            logger.info("a client that stopped reading its stream is dropped")
            scope[CUT]()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
