"""`hector call` and `hector chat` with --server: Hector's, and another that speaks A2A."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
import uvicorn
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, Message, Part, Role
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from tests.e2e.conftest import Run, Server, Start, ready
from tests.fakes.openai_server import Behaviour, FakeOpenAI
from tests.servers.certificates import ServerFiles, make_certificates
from tests.servers.process import free_port

Serve: TypeAlias = Callable[..., Awaitable[Server]]


async def test_a_conversation_goes_on_at_the_server(serve: Serve, run: Run) -> None:
    server = await serve()
    first = await run("call", f"--server={server.url}", "assistant", "My name is Ada")
    assert (first.status, first.out) == (0, "Got it: My name is Ada\n")
    session = first.err.removeprefix("session ").strip()
    asked = ["call", f"--server={server.url}/", f"--session={session}", "assistant", "-", "--json"]
    second = json.loads((await run(*asked, stdin="What is my name?")).out)
    assert (second["session"], second["state"]) == (session, "completed")
    assert second["reply"] == "You told me: My name is Ada"


async def test_an_agents_own_url_needs_no_name(serve: Serve, run: Run) -> None:
    server = await serve()
    ended = await run("call", f"--server={server.url}/v1/agents/assistant", "-", "Hello", "--no-stream")
    assert (ended.status, ended.out) == (0, "Got it: Hello\n")


async def test_a_chat_is_one_session(serve: Serve, run: Run) -> None:
    server = await serve()
    ended = await run(
        "chat", f"--server={server.url}", "assistant", stdin="My name is Ada\nWhat is my name?\n"
    )
    assert ended.out == "Got it: My name is Ada\nYou told me: My name is Ada\n"
    (line,) = ended.err.splitlines()
    again = await run("chat", line.split()[-1], f"--server={server.url}", "assistant", stdin="My name?\n")
    assert again.out == "You told me: My name is Ada\n"


async def test_an_answer_outlives_its_server(folder: Path, start: Start, fake: FakeOpenAI) -> None:
    port = str(free_port())
    server = await ready(await start("serve", "--port", port))
    fake.behave(Behaviour(text="one two three", chunks=3, hold_after=1))
    call = await start("call", f"--server={server.url}", "assistant", "Count")
    assert call.stdout
    assert await call.stdout.readexactly(4) == b"one "
    server.process.send_signal(signal.SIGKILL)
    await server.process.wait()
    await ready(await start("serve", "--port", port))
    fake.release()
    out, err = await call.communicate()
    assert call.returncode == 0, err
    assert out.decode().endswith("Got it: Count\n"), "the answer of the next attempt, whole"


async def test_ctrl_c_cancels_the_task(serve: Serve, start: Start, run: Run, fake: FakeOpenAI) -> None:
    server = await serve()
    fake.behave(Behaviour(hold=True))
    call = await start("call", f"--server={server.url}", "--session=s", "assistant", "Hello")
    await fake.until(lambda: fake.held == 1)
    call.send_signal(signal.SIGINT)
    await call.communicate()
    assert call.returncode == 130
    shown = json.loads((await run("sessions", "show", "s", "--json")).out)
    assert [message.get("notAnswered") for message in shown["messages"]] == ["canceled"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nobody", "Hello"], "agent 'nobody' not found (known: assistant)"),
        (["--task=none", "assistant", "Hello"], "task 'none' not found"),
        (["--user=ada", "assistant", "Hello"], "say --user or --server, not both"),
    ],
)
async def test_what_a_server_refuses_is_told(serve: Serve, run: Run, arguments: list[str], told: str) -> None:
    ended = await run("call", f"--server={(await serve()).url}", *arguments)
    assert ended.status > 0
    assert told in ended.err
    assert (ended.out, "Traceback" in ended.err) == ("", False)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:9", "cannot reach http://127.0.0.1:9"),
        ("127.0.0.1:8091", "--server: wanted a URL that begins with http:// or https://"),
    ],
)
async def test_a_server_that_is_not_there_is_told(run: Run, url: str, told: str) -> None:
    ended = await run("call", f"--server={url}", "assistant", "Hello")
    assert (ended.status > 0, told in ended.err) == (True, True), ended.err


async def test_a_token_says_who_calls(folder: Path, serve: Serve, run: Run, environ: dict[str, str]) -> None:
    config = folder / "config.yaml"
    auth = "server: {auth: {tokens: [{token: token-of-ada, user: ada}]}}"
    config.write_text(f"{config.read_text()}\n{auth}\n")
    server = await serve()
    refused = await run("call", f"--server={server.url}", "assistant", "Hello")
    assert "wants a token: set HECTOR_TOKEN, or give --token" in refused.err
    asked = ["call", f"--server={server.url}", "--session=s", "assistant", "Hello"]
    assert (await run(*asked, "--token=token-of-ada")).status == 0
    environ["HECTOR_TOKEN"] = "token-of-ada"
    assert (await run(*asked)).status == 0
    shown = json.loads((await run("sessions", "show", "s", "--user=ada", "--json")).out)
    assert shown["messageCount"] == 4


# --- where a token goes


@asynccontextmanager
async def _serving(
    routes: Sequence[BaseRoute], port: int, tls: ServerFiles | None = None
) -> AsyncIterator[None]:
    config = uvicorn.Config(Starlette(routes=routes), port=port, log_config=None, lifespan="off")
    if tls:
        config.ssl_certfile, config.ssl_keyfile = tls.cert, tls.key
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0.01)
    yield
    server.should_exit = True
    await serving


@asynccontextmanager
async def _overhearing() -> AsyncIterator[tuple[str, list[bytes]]]:
    """`host:port`, and the first of what each connection brings there."""
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    async with server:
        yield f"localhost:{server.sockets[0].getsockname()[1]}", heard


@pytest.mark.parametrize(
    ("binding", "scheme", "told"),
    [("JSONRPC", "http://", "without TLS"), ("GRPC", "http://", "without TLS"), ("GRPC", "", "localhost")],
)
async def test_a_token_for_a_server_with_tls_goes_nowhere_without(
    run: Run, environ: dict[str, str], tmp_path: Path, binding: str, scheme: str, told: str
) -> None:
    certificates = make_certificates(tmp_path)
    environ["SSL_CERT_FILE"] = str(certificates.client.ca)
    async with _overhearing() as (place, heard):
        interface = AgentInterface(url=scheme + place, protocol_binding=binding, protocol_version="1.0")
        routes = create_agent_card_routes(_card(interface))
        port = free_port()
        async with _serving(routes, port, certificates.server):
            ended = await run(
                "call", f"--server=https://localhost:{port}", "-", "Hi", "--token=secret-of-ada"
            )
    assert (ended.status, told in ended.err) == (1, True), ended.err
    assert all(first.startswith(_GREETING_OF_TLS) for first in heard)
    assert bool(heard) == (scheme == ""), "gRPC's own address says nothing of TLS"


_GREETING_OF_TLS = b"\x16\x03"


# --- a server that is not Hector


class _Echo(AgentExecutor):
    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        text = f"echo: {context.get_user_input()}"
        parts = [Part(text=text)]
        message = Message(message_id="1", context_id=context.context_id, role=Role.ROLE_AGENT, parts=parts)
        await event_queue.enqueue_event(message)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


def _card(interface: AgentInterface) -> AgentCard:
    return AgentCard(
        name="Echo",
        description="says it again",
        version="1",
        capabilities=AgentCapabilities(streaming=True),
        supported_interfaces=[interface],
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
    )


@asynccontextmanager
async def _echo_server() -> AsyncIterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    card = _card(AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0"))
    handler = DefaultRequestHandler(_Echo(), InMemoryTaskStore(), card)
    async with _serving([*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")], port):
        yield url


async def test_any_server_that_speaks_a2a_is_talked_to(run: Run) -> None:
    async with _echo_server() as url:
        ended = await run("call", f"--server={url}", "-", "Hello")
        assert (ended.status, ended.out) == (0, "echo: Hello\n"), ended.err
        chatted = await run("chat", f"--server={url}", "-", stdin="one\ntwo\n")
        assert chatted.out == "echo: one\necho: two\n"
