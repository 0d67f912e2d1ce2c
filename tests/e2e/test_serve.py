"""`hector serve` as a process: its beginning, its name and its end."""

import asyncio
import json
import re
import signal
import urllib.request
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.e2e.conftest import HECTOR, Run, Server, Start
from tests.fakes.openai_server import Behaviour, FakeOpenAI

Serve: TypeAlias = Callable[..., Awaitable[Server]]


async def send(server: Server, text: str, session: str = "s") -> Any:
    body = {"message": {"context_id": session, "role": 1, "content": [{"text": text}]}}
    request = urllib.request.Request(
        f"{server.url}/v1/agents/assistant/message:send",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )

    def answer() -> Any:
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    return await asyncio.to_thread(answer)


async def logged(process: Process, text: str) -> str:
    """The next log line that holds the text."""
    assert process.stderr
    while line := (await process.stderr.readline()).decode():
        if text in line:
            return line
    pytest.fail(f"it ended without a word of {text!r}")


async def end_of(process: Process) -> tuple[int | None, str]:
    _, err = await process.communicate()
    return process.returncode, err.decode()


async def test_it_is_ready_when_it_says_so_and_names_its_urls(serve: Serve) -> None:
    server = await serve()
    assert server.process.stdout
    pattern = (
        rf"ready: {server.url}  grpc: 127\.0\.0\.1:\d+  agents: assistant  \(pid {server.process.pid}\)\n"
    )
    (line,) = server.lines
    assert re.fullmatch(pattern, line)
    assert (
        await server.process.stdout.readline() == f"  assistant  {server.url}/v1/agents/assistant\n".encode()
    )
    answer = await send(server, "Hello")
    assert answer["task"]["artifacts"][0]["parts"] == [{"text": "Got it: Hello"}]


async def test_the_process_is_named_hector(serve: Serve) -> None:
    proc = Path("/proc")
    if not proc.exists():
        pytest.skip("this system has no /proc")
    server = await serve()
    assert (proc / str(server.process.pid) / "comm").read_text() == "hector\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_stops_it_after_what_runs(
    serve: Serve, fake: FakeOpenAI, number: signal.Signals
) -> None:
    server = await serve()
    fake.behave(Behaviour(hold=True))
    answer = asyncio.create_task(send(server, "Hello"))
    await fake.until(lambda: fake.held == 1)
    server.process.send_signal(number)
    await logged(server.process, f"{number.name}: stopping")
    fake.release()
    assert (await answer)["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    status, err = await end_of(server.process)
    assert (status, err.count("\n")) == (0, 1), err
    assert err.endswith("hector.cli.serve: stopped\n")


WARMS_UP_FOR_EVER = """
import asyncio, threading
from hector.runtime.runtime import Runtime

async def warm_up(self):
    print("warms up", flush=True)
    await asyncio.to_thread(threading.Event().wait)

Runtime.warm_up = warm_up
"""


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stop_does_not_wait_for_what_only_makes_it_faster(
    folder: Path, environ: dict[str, str], workers: int
) -> None:
    # Python runs it at the start of each process.
    (folder / "sitecustomize.py").write_text(WARMS_UP_FOR_EVER)
    environ = {**environ, "PYTHONPATH": f"{folder}:{environ.get('PYTHONPATH', '')}"}
    command = [str(HECTOR), "serve", "--port=0", f"--workers={workers}"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environ, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout
    for _ in range(workers):
        while b"warms up" not in (line := await process.stdout.readline()):
            assert line
    process.terminate()
    status, err = await end_of(process)
    assert (status, "killed" in err) == (0, False), err


async def test_a_second_ctrl_c_ends_it_at_once(serve: Serve, run: Run, fake: FakeOpenAI) -> None:
    server = await serve()
    fake.behave(Behaviour(hold=True))
    answer = asyncio.create_task(send(server, "Hello"))
    await fake.until(lambda: fake.held == 1)
    server.process.send_signal(signal.SIGINT)
    await logged(server.process, "stopping")
    server.process.send_signal(signal.SIGINT)
    assert await end_of(server.process) == (130, "")
    with pytest.raises(OSError, match=r"closed connection|reset"):
        await answer
    ended = await run("call", "--session=s", "assistant", "Are you there?")
    assert "session s: resumed, 1 message\n" in ended.err
    shown = json.loads((await run("sessions", "show", "s", "--json")).out)
    texts = [message["parts"][0]["text"] for message in shown["messages"]]
    assert texts[:3] == ["Hello", "Got it: Hello", "Are you there?"], "what was cut off first"


async def test_a_port_that_is_taken_is_told(folder: Path, serve: Serve, start: Start) -> None:
    config = folder / "config.yaml"
    config.write_text(f"{config.read_text()}\nserver: {{drain_timeout: 0}}\n")
    taken = int((await serve()).url.rpartition(":")[2])
    status, err = await end_of(await start("serve", "--port", str(taken - 1)))
    assert status == 1
    assert f"Error: server.port: port {taken} on 127.0.0.1 is in use" in err
    assert "Traceback" not in err


async def test_it_warns_where_strangers_may_come(serve: Serve) -> None:
    server = await serve("--host", "0.0.0.0")
    assert "WARNING" in await logged(server.process, "set server.auth.tokens")


async def test_logs_may_be_json(folder: Path, serve: Serve) -> None:
    config = folder / "config.yaml"
    config.write_text(f"{config.read_text()}\nlogging: {{format: json}}\n")
    server = await serve()
    server.process.terminate()
    status, err = await end_of(server.process)
    assert status == 0
    messages = [json.loads(line)["message"] for line in err.splitlines()]
    assert [message.split(" and ")[0] for message in messages] == [
        f"serving {server.url}",
        "SIGTERM: stopping",
        "stopped",
    ]


async def test_it_is_quiet_where_the_log_level_says_so(serve: Serve) -> None:
    server = await serve("--log-level", "warning")
    await send(server, "Hello")
    server.process.terminate()
    assert await end_of(server.process) == (0, "")


async def test_it_serves_although_whoever_started_it_does_not_read(start: Start) -> None:
    process = await start("serve", "--port", "0")
    assert process.stdout
    process.stdout._transport.close()  # type: ignore[attr-defined]  # as `| true` does
    line = await logged(process, "serving http://127.0.0.1:")
    await send(Server(process, line.split()[-5], []), "Hello")
    process.terminate()
    assert (await end_of(process))[0] == 0
