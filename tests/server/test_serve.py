"""Over a real socket: what only a network can show, and how a server starts and stops."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from typing import Any, NoReturn, TypeAlias

import httpx
import pytest

from hector.config import LimitsSection, ServerSection
from hector.domain.errors import ConfigError
from hector.llm.scripted import ScriptedModel
from hector.runtime.patience import Patience
from hector.server.http.responses import EventStream
from hector.server.http.sharing import Counts, Share, SharedAccepting
from hector.server.listening import listen
from hector.server.serve import Ports, Server, serve
from tests.server.site import open_scripted, said

Start: TypeAlias = Callable[..., Awaitable[tuple[Server, ScriptedModel]]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def start(
            *, shared: SharedAccepting | None = None, **settings: Any
        ) -> tuple[Server, ScriptedModel]:
            runtime, model = await open_scripted()
            section = ServerSection(port=0, **settings)
            sockets = await listen(section.host, 0, patience=0)
            server = Server(section, Ports(sockets, 0, shared), Patience())
            await server.start()
            await server.open(runtime)
            stack.push_async_callback(server.stop)
            return server, model

        yield start


@asynccontextmanager
async def connect(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def connections(server: Server) -> list[Any]:
    return list(server._http._uvicorn.server_state.connections)


def request(path: str, body: bytes, *headers: str) -> bytes:
    lines = [
        f"POST /v1/agents/a/{path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def post(path: str, text: str, session: str) -> bytes:
    body = json.dumps(said(text, session)["json"]).encode()
    return request(path, body, f"Content-Length: {len(body)}")


async def ask(server: Server, text: str, session: str = "s") -> Any:
    async with httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post("/v1/agents/a/message:send", **said(text, session))
        return answer.json()["task"]


async def test_a_turn_over_a_socket(start: Start) -> None:
    server, _ = await start()
    assert (await ask(server, "say hello"))["artifacts"][0]["parts"] == [{"text": "hello"}]


async def test_an_answer_is_sent_at_once(start: Start) -> None:
    server, _ = await start()
    async with connect(server):
        while not connections(server):  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)
        (connection,) = connections(server)
        taken = connection.transport.get_extra_info("socket")
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_text_arrives_while_the_model_still_writes(start: Start) -> None:
    server, model = await start()
    gate = model.gate("g")
    async with connect(server) as (reader, writer):
        writer.write(post("message:stream", "stream 2 ab\nwait g\nsay c", "s"))
        await reader.readuntil(b'"text":"b"')
        assert not gate.opened.is_set()
        gate.opened.set()
        await reader.readuntil(b"TASK_STATE_COMPLETED")


async def test_a_client_that_cuts_the_line_does_not_stop_the_turn(start: Start) -> None:
    server, model = await start()
    gate = model.gate("g")
    async with connect(server) as (reader, writer):
        writer.write(post("message:stream", "stream 2 ab\nwait g\nsay c", "s"))
        await reader.readuntil(b'"text":"b"')
        writer.transport.abort()
        gate.opened.set()
        await ask(server, "say next")
        async with httpx.AsyncClient(base_url=server.url) as client:
            shown = (await client.get("/v1/agents/a/sessions/s")).json()
        assert [message["parts"] for message in shown["messages"]][1] == [{"text": "ab"}, {"text": "c"}]


async def test_a_reader_that_stands_still_holds_nobody_up(start: Start) -> None:
    server, _ = await start()
    async with connect(server) as (_, stuck):
        # More than fits into all the buffers on the way.
        stuck.write(post("message:stream", "stream 300 " + "x y " * 1_500_000, "stuck"))
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            while not any(connection.flow.write_paused for connection in connections(server)):
                await client.get("/health")
            answer = await client.post(
                "/v1/agents/a/message:stream", **said("stream 300 " + "x y " * 300, "s")
            )
        assert answer.text.count("data: ") == 303


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_reader_that_stands_still_is_dropped_and_the_turn_goes_on(
    start: Start, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    quick = {"broken": None, "keep_alive": 0.01, "stalled": 0.05}
    monkeypatch.setattr(EventStream.__init__, "__kwdefaults__", quick)
    counts = Counts(Counts.new_file(workers), workers)
    shared = SharedAccepting(Share(counts, 0), at_once=True) if workers > 1 else None
    server, model = await start(shared=shared)
    gate = model.gate("g")
    async with connect(server) as (_, stuck):
        stuck.write(post("message:stream", "stream 300 " + "x y " * 1_500_000 + "\nwait g\nsay end", "stuck"))
        await gate.reached.wait()
        while connections(server):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
    gate.opened.set()
    assert (await ask(server, "say next", "stuck"))["artifacts"][0]["parts"] == [{"text": "next"}]


async def test_a_body_in_chunks_is_refused_once_it_is_too_large(start: Start) -> None:
    server, _ = await start(limits=LimitsSection(body=1000))
    async with connect(server) as (reader, writer):
        writer.write(request("message:send", b"", "Transfer-Encoding: chunked"))
        for _ in range(4):
            writer.write(b"190\r\n" + b"x" * 400 + b"\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")


async def test_a_body_that_is_announced_too_large_is_refused_unread(start: Start) -> None:
    server, _ = await start(limits=LimitsSection(body=1000))
    async with connect(server) as (reader, writer):
        writer.write(request("message:send", b"", "Content-Length: 999999999999"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")


async def test_a_stop_lets_turns_end_and_takes_no_connection(start: Start) -> None:
    server, model = await start()
    gate = model.gate("g")
    waiting = asyncio.create_task(ask(server, "wait g\nsay done"))
    await gate.reached.wait()
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection("127.0.0.1", server.port)
    gate.opened.set()
    assert (await waiting)["artifacts"][0]["parts"] == [{"text": "done"}]
    await stopping


async def test_a_stop_ends_what_does_not_end_in_time(start: Start) -> None:
    server, model = await start(drain_timeout=0)
    gate = model.gate("g")
    waiting = asyncio.create_task(ask(server, "wait g"))
    await gate.reached.wait()
    await server.stop()
    task = await waiting
    assert (task["status"]["state"], task["metadata"]["reason"]) == ("TASK_STATE_FAILED", "shutdown")


async def test_a_stop_cuts_off_who_does_not_read(start: Start) -> None:
    server, _ = await start(drain_timeout=0)
    async with connect(server) as (_, stuck):
        stuck.write(post("message:stream", "stream 300 " + "x y " * 1_500_000, "stuck"))
        async with httpx.AsyncClient(base_url=server.url) as client:
            while not any(connection.flow.write_paused for connection in connections(server)):
                await client.get("/health")
        await server.stop()
    assert connections(server) == []


async def test_serve_runs_until_it_is_told_to_stop() -> None:
    runtime, _ = await open_scripted()
    stop = asyncio.Event()
    ready: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(lambda _: nullcontext(runtime), ServerSection(port=0), stop=stop, ready=ready.set_result)
    )
    server = await ready
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{server.url}/ready")).status_code == 200
    stop.set()
    await serving


async def test_http_is_on_the_port_after() -> None:
    runtime, _ = await open_scripted()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    stop = asyncio.Event()
    found: list[tuple[int, str]] = []

    def ready(server: Server) -> None:
        found.append((server.port, server.url))
        stop.set()

    await serve(lambda _: nullcontext(runtime), ServerSection(port=port - 1), stop=stop, ready=ready)
    assert found == [(port, f"http://127.0.0.1:{port}")]


async def test_a_server_waits_for_its_port() -> None:
    old = socket.create_server(("127.0.0.1", 0))
    port = old.getsockname()[1]
    starting = asyncio.create_task(listen("127.0.0.1", port, patience=10))
    await asyncio.sleep(0)
    old.close()
    (found,) = await starting
    assert found.getsockname()[1] == port
    found.close()


async def test_a_port_that_stays_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as old:
        port = old.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"server.port: port {port} on 127.0.0.1 is in use.*--port"):
            await listen("127.0.0.1", port, patience=0)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("192.0.2.1", "cannot listen on 192.0.2.1 port 0: this machine has no such address$"),
        ("no.such.host.invalid", "no address"),
    ],
)
async def test_a_host_that_is_not_ours_is_named(host: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"server.host: {text}"):
        await listen(host, 0, patience=0)


@pytest.mark.parametrize(("host", "loopback"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)])
async def test_whether_others_can_reach_it_is_seen_by_its_addresses(
    start: Start, host: str, loopback: bool
) -> None:
    server, _ = await start(host=host)
    assert server.loopback is loopback
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{server.url}/v1/agents/a/sessions")
    assert answer.status_code == (200 if loopback else 403)


async def test_a_stop_while_it_waits_for_its_port_is_heeded_at_once(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        stop = asyncio.Event()
        section = ServerSection(port=other.getsockname()[1] - 1, drain_timeout=60.0)

        def opening(patience: Patience) -> NoReturn:
            raise AssertionError("no store is opened before the port is there")

        serving = asyncio.create_task(serve(opening, section, stop=stop))
        while "in use" not in caplog.text:  # noqa: ASYNC110 - a log line sets no event
            await asyncio.sleep(0)
        stop.set()
        async with asyncio.timeout(10):
            await serving
