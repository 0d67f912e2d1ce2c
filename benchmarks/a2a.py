"""A message over each transport and dialect of A2A: Hector's server beside a2a-sdk's own, in one run."""

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import grpc
from a2a.compat.v0_3 import a2a_v0_3_pb2 as v03
from a2a.compat.v0_3.a2a_v0_3_pb2_grpc import A2AServiceStub as Stub03
from a2a.types import Message, Part, Role, SendMessageRequest
from a2a.types.a2a_pb2_grpc import A2AServiceStub as Stub10
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as Proto

from benchmarks.http_load import Load, load
from benchmarks.serving import HECTOR, Server, running
from benchmarks.table import median, p99, show

CONNECTIONS = 16
SECONDS = 4.0
# Each message is another: Hector keeps those that it has read, as they never change.
TEXT = "How many words does an ordinary question of a user have, and what does that cost?"

CONFIG = """
session_stores:
  main:
    backend: sql
    sql: {{driver: sqlite, database: {folder}/sessions.db}}
llms:
  scripted: {{type: scripted}}
agents:
  durable: {{llm: scripted, session_store: main}}
  memory: {{llm: scripted}}
logging: {{level: warning}}
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A server, and where one of its agents is."""

    name: str
    server: Server
    grpc: str
    rest: str
    """Before `/message:send` of 1.0; that of 0.3 has `/v1` between."""
    rpc: str
    agent: str | None = None


async def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory(prefix="hector-bench-", dir=os.environ.get("BENCH_DIR")) as folder:
        async with AsyncExitStack() as stack:
            sites = [site async for site in _sites(stack, Path(folder))]
            for way, send in WAYS.items():
                for site in sites:
                    rows.append(await _row(way, site, send))
                    print(".", end="", flush=True, file=sys.stderr)
    header = ("transport", "server", "requests/s", "p50 ms", "p99 ms", "server CPU ms")
    show(f"a2a: one message, {CONNECTIONS} connections, a session each", header, rows)


async def _sites(stack: AsyncExitStack, folder: Path) -> AsyncIterator[Site]:
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(folder=folder))
    command = [str(HECTOR), "serve", "--config", str(config), "--port", "0"]
    server, port = await stack.enter_async_context(_running(command))
    for agent in ("memory", "durable"):
        base = f"{server.url}/agents/{agent}"
        yield Site(f"Hector, {agent}", server, port, base, base, agent)
    for name, arguments in (("in memory", []), ("database", [str(folder / "peer.db")])):
        peer = [sys.executable, "-m", "benchmarks.peer", *arguments]
        server, port = await stack.enter_async_context(_running(peer))
        yield Site(f"a2a-sdk, {name}", server, port, server.url, f"{server.url}/rpc")


@asynccontextmanager
async def _running(command: list[str]) -> AsyncIterator[tuple[Server, str]]:
    async with running(command, r"^ready.*?(http://\S+\s+grpc: \S+)", {}) as server:
        url, port = re.split(r"\s+grpc: ", server.url)
        yield Server(url, server.pid, server.ready_after), port


async def _row(way: str, site: Site, send: "Send") -> tuple[str, str, float, float, float, float]:
    await send(site, 1.0)
    before = site.server.cpu()
    done = await send(site, SECONDS)
    cpu = (site.server.cpu() - before) / done.requests * 1000
    return way, site.name, done.requests / done.seconds, median(done.latencies), p99(done.latencies), cpu


# --- the ways


Send = Callable[[Site, float], Awaitable[Load]]


def _message(connection: int) -> Message:
    name = str(uuid4())
    parts = [Part(text=f"{TEXT} {name}")]
    return Message(message_id=name, context_id=f"c{connection}", role=Role.ROLE_USER, parts=parts)


def _body10(connection: int) -> dict[str, object]:
    body: dict[str, object] = MessageToDict(SendMessageRequest(message=_message(connection)))
    return body


def _message03(connection: int) -> v03.Message:
    name = str(uuid4())
    parts = [v03.Part(text=f"{TEXT} {name}")]
    role = v03.Role.ROLE_USER
    return v03.Message(message_id=name, context_id=f"c{connection}", role=role, content=parts)


def _body03(connection: int) -> dict[str, object]:
    """... over JSON-RPC; over REST 0.3 has the JSON of its protocol buffers."""
    name = str(uuid4())
    part = {"kind": "text", "text": f"{TEXT} {name}"}
    message = {"kind": "message", "messageId": name, "contextId": f"c{connection}", "role": "user"}
    return {"message": {**message, "parts": [part]}}


async def _rest10(site: Site, seconds: float) -> Load:
    return await load(f"{site.rest}/message:send", CONNECTIONS, _body10, seconds=seconds, headers=V10)


async def _rest03(site: Site, seconds: float) -> Load:
    def body(connection: int) -> object:
        return MessageToDict(v03.SendMessageRequest(request=_message03(connection)))

    return await load(f"{site.rest}/v1/message:send", CONNECTIONS, body, seconds=seconds)


async def _rpc10(site: Site, seconds: float) -> Load:
    def body(connection: int) -> object:
        return {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": _body10(connection)}

    return await load(site.rpc, CONNECTIONS, body, seconds=seconds, headers=V10)


async def _rpc03(site: Site, seconds: float) -> Load:
    def body(connection: int) -> object:
        return {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": _body03(connection)}

    return await load(site.rpc, CONNECTIONS, body, seconds=seconds)


async def _grpc10(site: Site, seconds: float) -> Load:
    def asked(connection: int) -> Proto:
        return SendMessageRequest(message=_message(connection), tenant=site.agent or "")

    return await _grpc(site, seconds, _call10, asked)


async def _grpc03(site: Site, seconds: float) -> Load:
    def asked(connection: int) -> Proto:
        return v03.SendMessageRequest(request=_message03(connection))

    return await _grpc(site, seconds, _call03, asked)


def _call10(channel: grpc.aio.Channel) -> Callable[..., Awaitable[Proto]]:
    call: Callable[..., Awaitable[Proto]] = Stub10(channel).SendMessage  # type: ignore[no-untyped-call]
    return call


def _call03(channel: grpc.aio.Channel) -> Callable[..., Awaitable[Proto]]:
    call: Callable[..., Awaitable[Proto]] = Stub03(channel).SendMessage  # type: ignore[no-untyped-call]
    return call


async def _grpc(
    site: Site,
    seconds: float,
    method: Callable[[grpc.aio.Channel], Callable[..., Awaitable[Proto]]],
    asked: Callable[[int], Proto],
) -> Load:
    latencies: list[float] = []
    started = time.perf_counter()
    metadata = [("agent-name", site.agent)] if site.agent else []

    async def one(number: int) -> None:
        # A connection of its own, as the others have.
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(site.grpc, options=options) as channel:
            call = method(channel)
            while (began := time.perf_counter()) < started + seconds:
                await call(asked(number), metadata=metadata)
                latencies.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))
    return Load(len(latencies), time.perf_counter() - started, latencies)


V10 = {"A2A-Version": "1.0"}
WAYS: dict[str, Send] = {
    "REST 1.0": _rest10,
    "REST 0.3": _rest03,
    "JSON-RPC 1.0": _rpc10,
    "JSON-RPC 0.3": _rpc03,
    "gRPC 1.0": _grpc10,
    "gRPC 0.3": _grpc03,
}
