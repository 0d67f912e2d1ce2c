"""A lean HTTP/1.1 client, so that the load costs little beside what is measured."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load."""

    requests: int
    seconds: float
    latencies: Sequence[float]
    """Milliseconds of each request."""


async def load(
    url: str,
    connections: int,
    body: Callable[[int], object],
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
) -> Load:
    """POST `body(connection)` over and over on so many connections; any answer but 200 is an error."""
    parts = urlsplit(url)
    latencies: list[float] = []
    started = time.perf_counter()
    end = started + seconds
    named = {"Host": parts.netloc, "Content-Type": "application/json", **(headers or {})}
    lines = f"POST {parts.path} HTTP/1.1\r\n" + "".join(f"{name}: {named[name]}\r\n" for name in named)

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while (began := time.perf_counter()) < end:
            payload = json.dumps(body(number)).encode()
            head = f"{lines}Content-Length: {len(payload)}\r\n\r\n".encode()
            writer.write(head + payload)
            await _answer(reader)
            latencies.append((time.perf_counter() - began) * 1000)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one(number) for number in range(connections)))
    return Load(len(latencies), time.perf_counter() - started, latencies)


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length")
    )
    answer = await reader.readexactly(length)
    # JSON-RPC tells its errors with the status 200.
    if not head.startswith(b"HTTP/1.1 200") or b'"error":' in answer[:100]:
        raise RuntimeError(f"{head.splitlines()[0].decode()}: {answer[:300].decode()}")
    return answer
