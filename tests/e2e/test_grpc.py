"""The gRPC port of the real command: alone, over restarts, and shared by workers."""

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from a2a.types import a2a_pb2
from a2a.types.a2a_pb2_grpc import A2AServiceStub

from tests.e2e.conftest import Server
from tests.fakes.openai_server import Behaviour, FakeOpenAI
from tests.servers.process import free_port

Serve: TypeAlias = Callable[..., Awaitable[Server]]

TOOL = """\
import os

def pid() -> str:
    '''Which process runs it.'''
    return str(os.getpid())
"""
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
"""Channels of one process share connections otherwise."""


@asynccontextmanager
async def calling(server: Server) -> AsyncIterator[Any]:
    (address,) = re.findall(r"grpc: (\S+)", server.lines[0])
    async with grpc.aio.insecure_channel(address, options=OWN_CONNECTION) as channel:
        yield A2AServiceStub(channel)  # type: ignore[no-untyped-call]


def said(text: str, message_id: str) -> Any:
    parts = [a2a_pb2.Part(text=text)]
    message = a2a_pb2.Message(message_id=message_id, context_id="s", role=a2a_pb2.ROLE_USER, parts=parts)
    return a2a_pb2.SendMessageRequest(message=message)


async def answer(call: Awaitable[Any]) -> str:
    return str((await call).task.artifacts[0].parts[0].text)


async def test_a_conversation_goes_on_after_a_restart(serve: Serve) -> None:
    server = await serve()
    async with calling(server) as agent:
        assert await answer(agent.SendMessage(said("My cat is Tom.", "m1"))) == "Got it: My cat is Tom."
    server.process.kill()
    await server.process.wait()
    async with calling(await serve()) as agent:
        assert "My cat is Tom." in await answer(agent.SendMessage(said("What is my cat?", "m2")))


async def test_a_stop_lets_calls_end(serve: Serve, fake: FakeOpenAI) -> None:
    server = await serve()
    fake.behave(Behaviour(hold=True))
    async with calling(server) as agent:
        streaming = agent.SendStreamingMessage(said("Hello", "m1"))
        await streaming.read()
        await fake.until(lambda: fake.held == 1)
        server.process.terminate()
        assert server.process.stderr
        while b"SIGTERM: stopping" not in await server.process.stderr.readline():
            pass
        fake.release()
        events = []
        while (event := await streaming.read()) is not grpc.aio.EOF:
            events.append(event)
    assert events[-1].status_update.status.state == a2a_pb2.TASK_STATE_COMPLETED
    assert await server.process.wait() == 0


async def test_a_port_that_is_taken_is_told(folder: Path, start: Any) -> None:
    config = folder / "config.yaml"
    config.write_text(f"{config.read_text()}\nserver: {{drain_timeout: 0}}\n")
    with socket.create_server(("127.0.0.1", free_port())) as other:
        taken = other.getsockname()[1]
        for more in ((), ("--workers", "2")):
            process = await start("serve", "--port", str(taken), *more)
            _, err = await process.communicate()
            assert process.returncode == 1
            assert f"server.port: port {taken} on 127.0.0.1 is in use" in err.decode()


async def test_workers_share_the_port(serve: Serve, folder: Path) -> None:
    (folder / "tools.py").write_text(TOOL)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("model: recall", "model: obey") + "    tools: [tools:pid]\n")
    server = await serve("--workers", "2")
    pids: set[str] = set()
    number = 0
    while len(pids) < 2:
        # The system chooses by the client's port, so some more connections than workers are needed.
        async with calling(server) as agent:
            pids.add(await answer(agent.SendMessage(said("call pid {}", f"m{number}"))))
            number += 1
    dead = pids.pop()
    os.kill(int(dead.removeprefix("pid said: ")), signal.SIGKILL)
    later: set[str] = set()
    while len(later | pids) < 2:
        async with calling(server) as agent:
            async with asyncio.timeout(30):
                call = agent.SendMessage(said("call pid {}", f"m{number}"), wait_for_ready=True)
                number += 1
                # A connection may have been the dead one's.
                with suppress(grpc.aio.AioRpcError):
                    later.add(await answer(call))
    assert dead not in later
