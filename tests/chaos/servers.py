"""Real `hector` processes: started, stopped for a while, and killed."""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.history import Answer
from tests.chaos.ledger import Ledger
from tests.chaos.model import instructions_of, model_of
from tests.chaos.network import Link
from tests.chaos.processes import children_of, send_all, until_ended
from tests.chaos.runs import PAUSED
from tests.chaos.stores import Store, Way
from tests.chaos.tools import LEDGER

TOOLS: Mapping[str, Sequence[str]] = {
    "ant": ("look", "ask"),
    "bee": ("look", "pay", "ask"),
    "cat": ("look", "pay", "ask"),
}
AGENTS = tuple(TOOLS)
ON_CRASH: Mapping[str, Mapping[str, str]] = {
    # By default an agent without tools that have side effects is run on, and another is not.
    "ant": {},
    "bee": {"on_crash": "fail"},
    "cat": {"on_crash": "resume"},
}
USERS = ("una", "uwe")
LEASE_TTL = 1.0
READY_WITHIN = 30.0
"""Seconds; on a busy machine."""
_STORE = "kept"
_ENDS_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
"""Where Linux has it: nothing is left running, whatever becomes of the harness."""


def token_of(user: str) -> str:
    return f"token-of-{user}"


def configuration(sql: Mapping[str, Any], model_url: str) -> Mapping[str, Any]:
    """JSON is YAML, too."""
    return {
        "server": {
            "auth": {"tokens": [{"token": token_of(user), "user": user} for user in USERS]},
            # What runs at a stop is handed over.
            "drain_timeout": 0,
        },
        "turns": {"lease_ttl": LEASE_TTL},
        "session_stores": {_STORE: {"backend": "sql", "sql": sql}},
        "llms": {
            agent: {"type": "openai", "model": model_of(agent), "host": model_url, "api_key": "any"}
            for agent in AGENTS
        },
        "agents": {
            agent: {
                "llm": agent,
                "prompt": instructions_of(agent),
                "session_store": _STORE,
                "tools": [f"tests.chaos.tools:{tool}" for tool in TOOLS[agent]],
                "turns": ON_CRASH[agent],
                # The whole conversation is sent, so that the model can be asked what it was.
                "memory": {"working": {"strategy": "buffer_window", "window_size": 100_000}},
            }
            for agent in AGENTS
        },
        "logging": {"level": "warning"},
    }


class StartError(Exception):
    """A server ended by itself before it was ready, or took too long."""


class Server:
    """One `hector serve`: a process, or one that watches its workers."""

    def __init__(self, process: Process, log: Path, way: Way, workers: int) -> None:
        self._process = process
        self._stopped: list[int] = []
        """The processes that stand still."""
        self._killed: list[int] = []
        """Workers that were killed with it."""
        self.workers = workers
        self.log = log
        self.way = way
        self.url = ""
        """Empty until it is ready, and again once it was killed."""
        self.paused = False
        self.killed = False
        """It is ending, or has ended."""
        self.stopped = False
        """... because it was told to."""
        self.gone = False
        """Nothing that it has sent to its database can have any effect any more."""

    @property
    def replicas(self) -> list[int]:
        """The processes that serve, as far as they have been started."""
        return [self._process.pid] if self.workers == 1 else children_of(self._process.pid)

    @property
    def serving(self) -> bool:
        return bool(self.url)

    @property
    def link(self) -> Link:
        assert self.way.link, "only what is reached by a network is cut off"
        return self.way.link

    async def ready(self) -> bool:
        """False if it was killed before. Raises `StartError`."""
        assert self._process.stdout
        try:
            async with asyncio.timeout(READY_WITHIN):
                async for line in self._process.stdout:
                    if line.startswith(b"ready") and not self.killed:
                        self.url = next(word for word in line.decode().split() if word.startswith("http://"))
                        return True
                await self._process.wait()
        except TimeoutError:
            raise StartError(f"{self.log.name}: not ready within {READY_WITHIN:g} s") from None
        if self.killed:
            return False
        raise StartError(f"{self.log.name}: ended with {self._process.returncode} before it was ready")

    def kill(self) -> None:
        self.url, self.killed, self.paused = "", True, False
        # The first alone would be followed by workers that stop in good order.
        self._killed = children_of(self._process.pid)
        self._signal(signal.SIGKILL)
        send_all(self._killed, signal.SIGKILL)

    def kill_worker(self, pid: int) -> None:
        """It is started again by the process that watches it."""
        send_all([pid], signal.SIGKILL)

    def pause(self, pids: Sequence[int]) -> None:
        """Some or all of its replicas."""
        self.paused, self._stopped = True, list(pids)
        send_all(pids, signal.SIGSTOP)

    def go_on(self) -> None:
        if self.paused:
            self.paused = False
            send_all(self._stopped, signal.SIGCONT)

    def stop(self) -> None:
        """It ends by itself; as to its clients, it is as if it were killed."""
        self.stopped = self.killed = True
        self.terminate()

    def terminate(self) -> None:
        self.url = ""
        self._signal(signal.SIGTERM)

    async def wait(self) -> int:
        status = await self._process.wait()
        await until_ended(self._killed)
        return status

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


class Hector:
    """Starts processes, and ends all that it has started."""

    def __init__(self, folder: Path, store: Store, model_url: str, *, without: str | None) -> None:
        self.folder = folder
        self._store = store
        self._model_url = model_url
        self.ledger = Ledger(folder / "ledger.txt")
        self._without = without
        self._numbers = itertools.count()
        self._started: list[Process] = []

    async def serve(self, *, workers: int = 1) -> Server:
        name, way = await self._prepare("serve", processes=workers)
        log = self.folder / f"{name}.log"
        options = ["--config", self._config(name), "--port", "0", "--workers", str(workers)]
        return Server(await self._start("serve", *options, log=log), log, way, workers)

    async def call(self, agent: str, user: str, session: str, text: str) -> tuple[Process, Way]:
        name, way = await self._prepare("call")
        where = ["--config", self._config(name), "--user", user, "--session", session]
        process = await self._start("call", *where, "--json", agent, text, log=self.folder / f"{name}.log")
        return process, way

    async def until_gone(self, way: Way) -> bool:
        """See `Store`; of a process that has ended."""
        return await self._store.until_gone(way)

    async def end_all(self) -> None:
        for process in self._started:
            if process.returncode is None:
                send_all(children_of(process.pid), signal.SIGKILL)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        await asyncio.gather(*(process.wait() for process in self._started))

    def logs(self) -> dict[Path, str]:
        return {log: log.read_text(errors="replace") for log in sorted(self.folder.glob("*.log"))}

    async def _prepare(self, command: str, *, processes: int = 1) -> tuple[str, Way]:
        name = f"{command}-{next(self._numbers)}"
        way = await self._store.way(processes)
        Path(self._config(name)).write_text(json.dumps(configuration(way.section, self._model_url), indent=1))
        return name, way

    def _config(self, name: str) -> str:
        return str(self.folder / f"{name}.yaml")

    async def _start(self, *arguments: str, log: Path) -> Process:
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *_ENDS_WITH_PARENT,
                *self._program(),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=PIPE,
                stderr=stderr,
                env={**os.environ, "PYTHONUNBUFFERED": "1", LEDGER: str(self.ledger.path)},
            )
        self._started.append(process)
        return process

    def _program(self) -> Sequence[str]:
        if self._without is None:
            return sys.executable, "-m", "hector"
        return sys.executable, "-m", "tests.chaos.sabotage", self._without


def parse_task(task: Mapping[str, Any]) -> Answer:
    """The turn in an answer over HTTP."""
    state = str(task["status"]["state"]).removeprefix("TASK_STATE_").lower()
    artifacts = [artifact for artifact in task.get("artifacts", []) if artifact["name"] == "reply"]
    reply = "".join(part["text"] for artifact in artifacts for part in artifact["parts"])
    if state in PAUSED:
        reply = question_in(task["status"])
    return Answer(task["id"], state, reply, task.get("metadata", {}).get("reason"))


def question_in(status: Mapping[str, Any]) -> str:
    """'' if there is none, which is for the checker to judge."""
    return "".join(part["text"] for part in status.get("message", {}).get("parts", []))


def parse_call(output: bytes) -> Answer | None:
    """The turn that `hector call --json` prints; None if it printed none."""
    if not output.strip():
        return None
    shown = json.loads(output)
    return Answer(shown["task"], shown["state"], shown["reply"] or "", shown["reason"])
