"""The run: load, faults at random moments, and a look at everything after each."""

import asyncio
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.kill.checker import Checker
from tests.kill.clients import Clients
from tests.kill.database import Snapshot, faults_of_the_file, read
from tests.kill.history import History
from tests.kill.model import RecordingModel
from tests.kill.servers import LEASE_TTL, Hector, Server, StartError

Fault = Literal["kill", "pause", "delete", "kill call"]

SERVERS = 2
WORKERS = 10
QUIET_WITHIN = 10.0
"""Seconds after the last request in which every turn ends, and every dead replica is cleared away."""
_WEIGHTS: dict[Fault, int] = {"kill": 45, "pause": 20, "delete": 25, "kill call": 10}
_BETWEEN_FAULTS = 0.35
"""Seconds on average."""
_BLOW_UPON_BLOW = 0.3
"""How likely a fault does not wait until clients have had answers after the last one."""
_KILL_DURING_A_START = 0.15
"""How likely a server is killed while another is starting."""
_MOST_CALLS = 2
"""At one time: each costs more than a second of the processor."""
_CALL_EVERY = 5
"""Faults, after which a `hector call` is made that nobody kills."""
_PROGRESS_EVERY = 5.0
_LONGEST_START, _SECONDS_A_FAULT = 120.0, 10.0
"""What bounds a run; it usually takes a tenth of it."""


@dataclass(frozen=True, slots=True)
class Settings:
    faults: int
    seed: int
    without: str | None = None
    """A safeguard to take out, see sabotage.py."""


@dataclass(slots=True)
class Report:
    settings: Settings
    faults: Counter[Fault] = field(default_factory=Counter)
    operations: int = 0
    acknowledged: int = 0
    repeats: int = 0
    calls: int = 0
    model_calls: int = 0
    states: Counter[str] = field(default_factory=Counter)
    """Of the turns that are stored in the end."""
    looks: int = 0
    seconds: float = 0.0
    anomalies: list[str] = field(default_factory=list)
    folder: Path | None = None
    """Where the database is kept, if there were anomalies."""

    def lines(self) -> list[str]:
        faults, turns = self.faults, ", ".join(f"{n} {state}" for state, n in sorted(self.states.items()))
        return [
            f"{faults.total():7} faults in {self.seconds:.0f} s",
            f"{faults['kill']:7} servers killed",
            f"{faults['pause']:7} servers stopped for longer than their lease",
            f"{faults['delete']:7} sessions deleted in use",
            f"{faults['kill call']:7} of {self.calls} `hector call` killed",
            f"{self.operations:7} requests, {self.repeats} of them repeats",
            f"{self.acknowledged:7} acknowledged",
            f"{self.model_calls:7} model calls; stored turns: {turns}",
            f"{self.looks:7} looks at the database",
            f"{len(self.anomalies):7} anomalies",
        ]


async def run(settings: Settings, say: Callable[[str], None] = print) -> Report:
    """Ends what it started and removes its files in every case; files are kept if there were anomalies."""
    folder = Path(tempfile.mkdtemp(prefix="hector-kill-"))
    report = Report(settings)
    started = time.monotonic()
    history, rng = History(), random.Random(settings.seed)
    try:
        async with RecordingModel(history, random.Random(settings.seed)) as model:
            hector = Hector(folder, model.url, without=settings.without)
            try:
                await _bounded(_Suite(settings, history, rng, hector, report, say), report)
            finally:
                await hector.end_all()
                report.anomalies += _complaints(hector)
            report.model_calls = model.asked
    finally:
        report.seconds = time.monotonic() - started
        if report.anomalies or not isinstance(sys.exception(), asyncio.CancelledError | None):
            _keep_history(history, started, folder / "history.txt")
            report.folder = folder
            say(f"the database, logs and history are in {folder}")
        else:
            shutil.rmtree(folder)
    return report


async def _bounded(suite: "_Suite", report: Report) -> None:
    limit = _LONGEST_START + suite.settings.faults * _SECONDS_A_FAULT
    try:
        async with asyncio.timeout(limit):
            await suite.run()
    except TimeoutError:
        report.anomalies.append(f"the run did not end within {limit:.0f} s")


class _Suite:
    def __init__(
        self,
        settings: Settings,
        history: History,
        rng: random.Random,
        hector: Hector,
        report: Report,
        say: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self._history, self._rng, self._hector, self._report, self._say = history, rng, hector, report, say
        self._servers: list[Server] = []
        self._clients = Clients(history, lambda: self._servers, rng)
        self._checker = Checker()
        self._looking = asyncio.Lock()
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._calls: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        async with self._clients:
            # One after the other: the first makes the database.
            for _ in range(SERVERS):
                self._servers.append(await self._hector.serve())
                await self._until_ready(self._servers[-1])
            async with self._group:
                workers = [self._start(self._clients.work()) for _ in range(WORKERS)]
                telling = self._start(self._tell())
                await self._make_faults()
                if self._report.anomalies:
                    for task in self._tasks:
                        task.cancel()
                else:
                    self._clients.stopping = True
                    await asyncio.wait(workers)
                    await self._clients.settle()
                    telling.cancel()
            await self._look_at_the_end(quiet=not self._report.anomalies)
            if not self._report.anomalies:
                await self._stop_cleanly()
        self._report.anomalies += [f"no answer for {text}" for text in self._clients.unanswered]

    # --- faults

    async def _make_faults(self) -> None:
        await self._clients.until_answered(10, patience=15)
        while self._report.faults.total() < self.settings.faults and not self._report.anomalies:
            await asyncio.sleep(self._rng.expovariate(1 / _BETWEEN_FAULTS))
            if self._rng.random() > _BLOW_UPON_BLOW:
                await self._clients.until_answered(3, patience=2)
            kinds = list(_WEIGHTS)
            kind = self._rng.choices(kinds, [_WEIGHTS[each] for each in kinds])[0]
            if self._make(kind):
                self._report.faults[kind] += 1
                if self._report.faults.total() % _CALL_EVERY == 0:
                    self._call()

    def _make(self, kind: Fault) -> bool:
        match kind:
            case "kill":
                return self._kill()
            case "pause":
                able = [server for server in self._servers if server.serving]
                if not able or any(server.paused for server in self._servers):
                    return False
                _ = self._start(self._pause(self._rng.choice(able)))
            case "delete":
                _ = self._start(self._clients.delete(self._clients.choose_place()))
            case "kill call":
                return self._call(kill_after=self._rng.uniform(0.2, 2.0))
        return True

    def _kill(self) -> bool:
        """One that serves, which may stand still; sometimes the last one, or one that is just starting."""
        alive = [server for server in self._servers if not server.killed]
        serving = [server for server in alive if server.serving]
        if len(serving) < SERVERS and self._rng.random() > _KILL_DURING_A_START:
            return False
        if not alive:
            return False
        killed = self._rng.choice(alive)
        killed.kill()
        _ = self._start(self._restart(self._servers.index(killed), killed))
        return True

    async def _restart(self, place: int, killed: Server) -> None:
        self._servers[place] = started = await self._hector.serve()
        await killed.wait()
        if await self._until_ready(started):
            await self._look()

    async def _until_ready(self, server: Server) -> bool:
        """False if it was killed before."""
        try:
            ready = await server.ready()
        except StartError as error:
            self._report.anomalies.append(str(error))
            return False
        if ready:
            self._clients.server_is_ready()
        return ready

    async def _pause(self, server: Server) -> None:
        server.pause()
        try:
            await asyncio.sleep(LEASE_TTL * self._rng.uniform(1.5, 3))
        finally:
            server.go_on()

    def _call(self, *, kill_after: float | None = None) -> bool:
        self._calls = {call for call in self._calls if not call.done()}
        if len(self._calls) == _MOST_CALLS:
            return False
        self._calls.add(self._start(self._clients.call(self._hector, kill_after=kill_after)))
        return True

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- looking

    async def _look(self) -> None:
        async with self._looking:
            touched = self._history.take_touched()
            try:
                snapshot = await asyncio.to_thread(read, self._hector.database, touched)
            except sqlite3.OperationalError:
                # That server has been killed again, and nobody has the file open.
                self._history.touch(touched)
                return
            self._judge(snapshot, final=False)

    def _judge(self, snapshot: Snapshot, *, final: bool) -> None:
        self._report.looks += 1
        found = map(str, self._checker.check(self._history, snapshot, final=final))
        self._report.anomalies = list(dict.fromkeys([*self._report.anomalies, *found]))

    async def _look_at_the_end(self, *, quiet: bool) -> None:
        """With `quiet` everything must come to its end; without it the run was broken off."""
        report, history = self._report, self._history
        deadline = time.monotonic() + QUIET_WITHIN
        while True:
            snapshot = await asyncio.to_thread(read, self._hector.database)
            ended = snapshot.open_turns == 0 and len(snapshot.replicas) == SERVERS
            if ended or not quiet or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        self._judge(snapshot, final=quiet)
        if quiet and len(snapshot.replicas) != SERVERS:
            report.anomalies.append(f"{len(snapshot.replicas)} replicas are registered, {SERVERS} are alive")
        report.anomalies += faults_of_the_file(self._hector.database)
        report.operations, report.acknowledged = history.sends, history.acknowledged
        report.calls = self._clients.calls
        report.repeats = history.sends - sum(len(place.sends) for place in history.places.values())
        report.states.update(turn.state for rows in snapshot.places.values() for turn in rows.turns.values())

    async def _stop_cleanly(self) -> None:
        for server in self._servers:
            server.terminate()
        for server in self._servers:
            if status := await server.wait():
                self._report.anomalies.append(f"a server that was told to stop ended with status {status}")
        left = [path.name for path in self._hector.folder.glob("sessions.db-[ws]*")]
        if left:
            self._report.anomalies.append(f"a clean end left {left}")

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_EVERY)
            history, report = self._history, self._report
            self._say(
                f"{report.faults.total()} of {self.settings.faults} faults, {history.sends} requests,"
                f" {history.acknowledged} acknowledged, {len(report.anomalies)} anomalies"
            )


def _complaints(hector: Hector) -> list[str]:
    """Defects that the servers logged themselves."""
    return [
        f"{log.name} holds a traceback: {text.strip().splitlines()[-1]}"
        for log, text in hector.logs().items()
        if "Traceback" in text or "defect" in text
    ]


def _keep_history(history: History, started: float, file: Path) -> None:
    """For people: what happened at each place, by time."""
    lines = []
    for place, told in sorted(history.places.items()):
        events = [(send.start, f"send {send}") for sends in told.sends.values() for send in sends]
        events += [(delete.start, f"delete {delete}") for delete in told.deletes]
        events += [(call.at, f"model {call}") for call in told.calls]
        lines += [f"{place} {at - started:.3f} (at {at:.3f}) {what}" for at, what in sorted(events)]
    file.write_text("\n".join(lines))
