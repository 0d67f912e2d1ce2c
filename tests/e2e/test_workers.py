"""`hector serve --workers N`: several processes that are one server to everybody outside."""

import asyncio
import json
import os
import re
import signal
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from tests.e2e.conftest import HECTOR, Run, Server, Start, ready
from tests.e2e.over_http import Client, client, reply
from tests.fakes.openai_server import Behaviour, FakeOpenAI
from tests.servers.process import free_port

Serve: TypeAlias = Callable[..., Awaitable[Server]]

_SERVES = re.compile(r"worker (?P<number>\d+) serves \(pid (?P<pid>\d+)\)")

TOOL = """\
import os, signal, subprocess

def pid() -> str:
    '''Which process runs it.'''
    return str(os.getpid())

def die() -> str:
    '''Kill the process that runs it.'''
    os.kill(os.getpid(), signal.SIGKILL)
    return ""

def descriptors() -> str:
    '''What a program that it starts inherits.'''
    command = ["ls", "-l", "/proc/self/fd"]
    return subprocess.run(command, close_fds=False, capture_output=True, text=True, check=True).stdout
"""


INTERRUPTED = """\
import signal, sys

if "hector.cli.workers.child" in sys.orig_argv:
    print("interrupted", file=sys.stderr, flush=True)
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGHUP)
"""


class Site:
    """A server with workers; it reads its log, so that what is waited for may come in any order."""

    def __init__(self, server: Server) -> None:
        self.server, self.process, self.url = server, server.process, server.url
        self.log: list[str] = []

    async def logged(self, pattern: str) -> re.Match[str]:
        """The first line, of all and of those to come, in which it is found."""
        for line in self.log:
            if found := re.search(pattern, line):
                return found
        assert self.process.stderr
        while line := (await self.process.stderr.readline()).decode():
            self.log.append(line)
            if found := re.search(pattern, line):
                return found
        pytest.fail(f"it ended without a word of {pattern!r}: {''.join(self.log)}")

    async def pid(self, worker: int) -> int:
        return int((await self.logged(rf"worker {worker} serves \(pid (\d+)\)"))[1])

    async def replaced(self, worker: int) -> int:
        """The pid of the next one that serves in a worker's place."""
        before = {int(found["pid"]) for line in self.log if (found := _SERVES.search(line))}
        while True:
            assert self.process.stderr
            line = (await self.process.stderr.readline()).decode()
            assert line, f"it ended: {''.join(self.log)}"
            self.log.append(line)
            found = _SERVES.search(line)
            if found and found["number"] == str(worker) and int(found["pid"]) not in before:
                return int(found["pid"])

    async def end(self) -> tuple[int | None, str]:
        """Its exit status, and what it still logged; so its workers have ended, too, and closed the pipe."""
        _, err = await self.process.communicate()
        return self.process.returncode, err.decode()


@pytest.fixture
def site(serve: Serve) -> Callable[..., Awaitable[Site]]:
    async def site(workers: int = 2, *options: str) -> Site:
        return Site(await serve("--workers", str(workers), *options))

    return site


StartSite: TypeAlias = Callable[..., Awaitable[Site]]


@pytest.fixture
def tools(folder: Path) -> None:
    """The agent does what its user writes, and has tools."""
    (folder / "tools.py").write_text(TOOL)
    config = folder / "config.yaml"
    text = config.read_text().replace("model: recall", "model: obey")
    config.write_text(f"{text}    tools: [tools:pid, tools:die, tools:descriptors]\n")


def configure(folder: Path, more: str) -> None:
    config = folder / "config.yaml"
    config.write_text(f"{config.read_text()}{more}\n")


async def answering(there: Client, session: str) -> int:
    """The pid of the process that answers."""
    return int((await there.say("call pid {}", session=session)).removeprefix("pid said: "))


async def connected_to(stack: AsyncExitStack, here: Site, pid: int) -> Client:
    """A client whose connection that worker has. Which one gets a connection is not for clients to choose."""
    while True:
        there = await stack.enter_async_context(client(here.url))
        if await answering(there, "whose") == pid:
            return there


async def on_each_worker(stack: AsyncExitStack, here: Site, workers: int) -> list[Client]:
    return [await connected_to(stack, here, await here.pid(number + 1)) for number in range(workers)]


# --- one server to everybody outside


async def test_it_is_ready_when_all_serve_and_says_so_once(site: StartSite) -> None:
    here = await site(3)
    url, pid = here.url, here.process.pid
    (line,) = here.server.lines
    assert re.fullmatch(rf"ready: {url}  grpc: \S+  agents: assistant  workers: 3  \(pid {pid}\)\n", line)
    assert here.process.stdout
    assert await here.process.stdout.readline() == f"  assistant  {url}/v1/agents/assistant\n".encode()
    await here.logged(f"serving {url} and gRPC on ")
    assert len({found["pid"] for line in here.log if (found := _SERVES.search(line))} - {str(pid)}) == 3
    here.process.terminate()
    status, err = await here.end()
    assert (status, err.count("\n")) == (0, 2), err
    assert "SIGTERM: stopping" in err
    assert err.endswith("supervisor: stopped\n")
    assert await here.process.stdout.read() == b""


@pytest.mark.usefixtures("tools")
async def test_turns_of_one_session_see_each_other_on_whatever_worker(site: StartSite) -> None:
    here = await site(2)
    async with AsyncExitStack() as stack:
        clients = await on_each_worker(stack, here, 2)
        for number in range(6):
            await clients[number % 2].say(f"say {number}")
        assert [text for text in await clients[0].texts("s") if "say" not in text] == list("012345")


async def test_workers_of_one_file_remember(site: StartSite) -> None:
    here = await site(2)
    async with client(here.url) as one, client(here.url) as two:
        await one.say("My project ID is ALPHA-789")
        assert "ALPHA-789" in await two.say("What is my project ID?")


async def test_processes_can_be_told_apart(site: StartSite) -> None:
    proc = Path("/proc")
    if not proc.exists():
        pytest.skip("this system has no /proc")
    here = await site(2)
    assert (proc / str(here.process.pid) / "comm").read_text() == "hector\n"
    worker = proc / str(await here.pid(2))
    assert (worker / "comm").read_text() == "hector: worker\n"
    assert (worker / "cmdline").read_bytes().rstrip(b"\0") == b"hector: worker 2"


@pytest.mark.usefixtures("tools")
async def test_programs_that_tools_start_hold_nothing_of_the_workers(site: StartSite) -> None:
    if not Path("/proc").exists():
        pytest.skip("this system has no /proc")
    here = await site(2)
    async with client(here.url) as there:
        inherited = await there.say("call descriptors {}")
    assert "pipe:" in inherited
    assert "socket:" not in inherited
    assert "hector" not in inherited


async def test_log_lines_tell_which_worker(folder: Path, site: StartSite) -> None:
    configure(folder, "logging: {format: json}")
    here = await site(2)
    os.kill(here.process.pid, signal.SIGKILL)
    _, err = await here.end()
    lines = [json.loads(line) for line in (*here.log, *err.splitlines())]
    told = [line.get("worker") for line in lines if "has ended" in line["message"]]
    assert sorted(told) == [1, 2]
    assert all("worker" not in line for line in lines if "serves" in line["message"])


async def test_the_configuration_may_say_how_many(folder: Path, serve: Serve) -> None:
    configure(folder, "server: {workers: 2}")
    assert "workers: 2" in (await serve()).lines[0]
    assert "workers" not in (await serve("--workers=1")).lines[0]


# --- workers that end


@pytest.mark.usefixtures("tools")
async def test_a_worker_that_was_killed_is_replaced_and_nothing_acknowledged_is_lost(
    site: StartSite,
) -> None:
    here = await site(2)
    async with AsyncExitStack() as stack:
        said = []
        for number in range(10):
            there = await stack.enter_async_context(client(here.url))
            said.append(await there.say(f"say {number}"))
        victim = await here.pid(1)
        os.kill(victim, signal.SIGKILL)
        # Meanwhile nobody is refused.
        for number in range(10, 20):
            there = await stack.enter_async_context(client(here.url))
            said.append(await there.say(f"say {number}"))
        successor = await here.replaced(1)
        assert successor != victim
        await here.logged(r"WARNING .* worker 1 was killed by SIGKILL; starting another now")
        there = await connected_to(stack, here, successor)
        assert [text for text in await there.texts("s") if "say" not in text] == said


@pytest.mark.usefixtures("tools")
async def test_a_turn_that_kills_its_worker_is_told_by_the_others(folder: Path, site: StartSite) -> None:
    configure(folder, "turns: {lease_ttl: 1}")
    here = await site(2)
    async with AsyncExitStack() as stack:
        one, two = await on_each_worker(stack, here, 2)
        with pytest.raises(httpx.HTTPError):
            await one.post("call die {}", message_id="m")
        again = (await two.post("call die {}", message_id="m")).json()["task"]
        assert again["metadata"]["reason"] == "tool_unknown"


async def test_a_worker_that_is_told_to_end_is_replaced(site: StartSite) -> None:
    here = await site(2)
    os.kill(await here.pid(2), signal.SIGTERM)
    await here.replaced(2)
    await here.logged("worker 2 ended with status 0; starting another now")


async def test_a_worker_leaves_the_signals_of_a_terminal_to_the_whole(site: StartSite) -> None:
    here = await site(2)
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(await here.pid(1), number)
    os.kill(await here.pid(1), signal.SIGTERM)
    # Had one of the others ended it, that would be its status.
    await here.replaced(1)
    await here.logged("worker 1 ended with status 0")


async def test_a_signal_of_a_terminal_that_comes_while_a_worker_starts_ends_none(
    folder: Path, environ: dict[str, str], site: StartSite
) -> None:
    (folder / "sitecustomize.py").write_text(INTERRUPTED)
    environ["PYTHONPATH"] = os.pathsep.join([str(folder), environ.get("PYTHONPATH", "")])
    here = await site(2)
    here.process.terminate()
    status, err = await here.end()
    assert (status, err.count("interrupted\n"), "ended" in err) == (0, 2, False), err


# --- the end of the whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_stops_all_of_them_after_what_runs(
    site: StartSite, fake: FakeOpenAI, number: signal.Signals
) -> None:
    here = await site(2)
    fake.behave(Behaviour(hold=True), Behaviour(hold=True))
    async with client(here.url) as one, client(here.url) as two:
        answers = [
            asyncio.create_task(one.post("Hello", session="a")),
            asyncio.create_task(two.post("Hello", session="b")),
        ]
        await fake.until(lambda: fake.held == 2)
        here.process.send_signal(number)
        await here.logged(f"{number.name}: stopping")
        fake.release()
        for answer in answers:
            assert reply(await answer)
    status, err = await here.end()
    assert (status, err.count("\n")) == (0, 1), err


async def test_a_ctrl_c_reaches_every_process_of_a_terminal_and_is_heeded_once(
    folder: Path, environ: dict[str, str], fake: FakeOpenAI
) -> None:
    process = await asyncio.create_subprocess_exec(
        HECTOR,
        "serve",
        "--port=0",
        "--workers=2",
        cwd=folder,
        env=environ,
        stdout=PIPE,
        stderr=PIPE,
        process_group=0,
    )
    here = Site(await ready(process))
    fake.behave(Behaviour(hold=True))
    async with client(here.url) as there:
        answer = asyncio.create_task(there.post("Hello"))
        await fake.until(lambda: fake.held == 1)
        os.killpg(here.process.pid, signal.SIGINT)
        await here.logged("SIGINT: stopping")
        fake.release()
        assert reply(await answer)
    assert (await here.end())[0] == 0


async def test_a_second_ctrl_c_ends_them_at_once(site: StartSite, fake: FakeOpenAI, run: Run) -> None:
    here = await site(2)
    fake.behave(Behaviour(hold=True))
    async with client(here.url) as there:
        answer = asyncio.create_task(there.post("Hello"))
        await fake.until(lambda: fake.held == 1)
        here.process.send_signal(signal.SIGINT)
        await here.logged("SIGINT: stopping")
        here.process.send_signal(signal.SIGINT)
        assert await here.end() == (130, "")
        with pytest.raises(httpx.HTTPError):
            await answer
    ended = await run("call", "--session=s", "assistant", "Are you there?")
    assert "session s: resumed" in ended.err


async def test_workers_end_by_themselves_when_nobody_watches_them(site: StartSite, fake: FakeOpenAI) -> None:
    here = await site(2)
    fake.behave(Behaviour(hold=True))
    async with client(here.url) as there:
        answer = asyncio.create_task(there.post("Hello"))
        await fake.until(lambda: fake.held == 1)
        here.process.kill()
        await here.logged(r"\[worker \d\] .*the process that started this one has ended: stopping")
        fake.release()
        assert reply(await answer), "they let what runs end"
    status, _ = await here.end()
    assert status == -signal.SIGKILL


@pytest.mark.long
async def test_a_worker_that_does_not_end_is_killed(folder: Path, site: StartSite) -> None:
    configure(folder, "server: {drain_timeout: 0}")
    here = await site(2)
    os.kill(await here.pid(2), signal.SIGSTOP)
    here.process.terminate()
    await here.logged("ERROR .* killed what has not ended within 15 s: worker 2")
    assert (await here.end())[0] == 1


# --- starts that fail


async def test_what_is_wrong_with_the_configuration_is_told_once(folder: Path, run: Run) -> None:
    configure(folder, "    tools: [none:such]")
    ended = await run("serve", "--port", "0", "--workers", "3")
    assert (ended.status, ended.out) == (2, "")
    (line,) = [line for line in ended.err.splitlines() if "none:such" in line or "'none'" in line]
    assert line.startswith("config.yaml:")
    assert "agents.assistant.tools[0]: " in line
    assert "Traceback" not in ended.err


async def test_a_store_that_cannot_be_opened_is_told_once(folder: Path, run: Run) -> None:
    (folder / "data").write_text("no folder")
    ended = await run("serve", "--port", "0", "--workers", "3")
    assert (ended.status, ended.out) == (1, "")
    (line,) = [line for line in ended.err.splitlines() if "Error: " in line]
    assert line.startswith("Error: failed to connect to session store 'main-db': ")


async def test_workers_that_die_at_their_start_are_given_up(folder: Path, run: Run) -> None:
    (folder / "dying.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    configure(folder, "    tools: [dying:tool]")
    ended = await run("serve", "--port", "0", "--workers", "2")
    assert (ended.status, ended.out) == (1, "")
    assert "cannot start: it was killed by SIGKILL, 3 times in a row\n" in ended.err


async def test_sessions_in_memory_are_refused(folder: Path, run: Run) -> None:
    (folder / "config.yaml").write_text("llms: {m: {type: scripted}}\nagents: {a: {llm: m}}\n")
    ended = await run("serve", "--workers", "2")
    assert ended.status == 2
    assert ended.err.startswith(
        "config.yaml:2: agents.a.session_store: the agent keeps its sessions in memory"
    )


@pytest.mark.parametrize("number", ["0", "257", "x"])
async def test_a_number_of_workers_that_is_none(run: Run, number: str) -> None:
    ended = await run("serve", "--workers", number)
    assert ended.status == 2
    assert "Invalid value for '--workers'" in ended.err


async def test_a_port_that_is_taken_is_told_once(folder: Path, site: StartSite, run: Run) -> None:
    configure(folder, "server: {drain_timeout: 0}")
    taken = int((await site()).url.rpartition(":")[2])
    ended = await run("serve", "--port", str(taken - 1), "--workers", "3")
    assert ended.status == 1
    assert ended.err == (
        f"Error: server.port: port {taken} on 127.0.0.1 is in use by another program; stop that,"
        " or choose another with --port (gRPC is served there, and HTTP on the port after it)\n"
    )


async def test_while_a_store_is_waited_for_it_says_so(folder: Path, start: Start) -> None:
    store, port = free_port(), free_port()
    (folder / "config.yaml").write_text(json.dumps(unreachable(store)))
    process = await start("serve", "--port", str(port - 1), "--workers", "2")
    assert process.stderr
    while b"trying again" not in (line := await process.stderr.readline()):
        assert line
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        assert (await http.get("/health")).status_code == 200
        told = await http.get("/ready")
        assert told.status_code == 503
        assert "main" in told.text
    process.terminate()
    await process.communicate()
    assert process.returncode == 0


def unreachable(port: int) -> dict[str, Any]:
    sql = {"driver": "postgres", "host": "127.0.0.1", "port": port, "user": "u", "database": "d"}
    return {
        "session_stores": {"main": {"backend": "sql", "sql": sql}},
        "llms": {"m": {"type": "scripted"}},
        "agents": {"assistant": {"llm": "m", "session_store": "main"}},
    }
