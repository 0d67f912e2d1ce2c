"""The run: load, faults at random moments, and a look at everything after each."""

import asyncio
import contextlib
import math
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, assert_never

from tests.chaos.checker import Checker
from tests.chaos.clients import Clients
from tests.chaos.database import Snapshot
from tests.chaos.faults import TOLD, Fault, PlannedFault, ServerFault, plan, weights
from tests.chaos.history import History
from tests.chaos.ledger import ASKS, SIDE_EFFECTS, Ledger, ToolRun
from tests.chaos.model import RecordingModel
from tests.chaos.on_server import OnServer, database_of_its_own
from tests.chaos.servers import LEASE_TTL, Hector, Server, StartError
from tests.chaos.sqlite import SqliteFile
from tests.chaos.stores import DatabaseName, Store, UnreadableError

SERVERS = 3
CLIENTS = 10
_WITH_WORKERS = 0.5
"""How many runs have `--workers 2` at one of the servers."""
_ONE_WORKER = 0.6
"""How often a kill there is one of a worker, and a pause one of a worker alone."""
QUIET_WITHIN = 10.0
"""Seconds after the last request in which every turn ends, and every dead replica is cleared away."""
_MOST_POSTPONED = 2
"""Faults that are due and cannot be made yet; others are made meanwhile."""
_MOST_CALLS = 2
"""At one time: each costs more than a second of the processor."""
_CALL_EVERY = 5
"""Faults, after which a `hector call` is made that nobody kills."""
_LONGEST_SILENCE = 0.05
"""Seconds in which answers are lost before the connections break."""
_WHERE_IT_HURTS = SIDE_EFFECTS | {ASKS}
"""The tools with which a turn cannot simply be run on."""
_PATIENCE_FOR_A_CALL = 1.0
"""Seconds."""
_PROGRESS_EVERY = 5.0
_LONGEST_START, _SECONDS_A_FAULT = 120.0, 10.0
"""What bounds a run; it usually takes a tenth of it."""


@dataclass(frozen=True, slots=True)
class Settings:
    faults: int
    seed: int
    without: str | None = None
    """A safeguard to take out, see sabotage.py."""
    database: DatabaseName = "sqlite"
    minutes: float | None = None
    """After which no more faults are made, however many are left."""


@dataclass(slots=True)
class Report:
    settings: Settings
    faults: Counter[Fault] = field(default_factory=Counter)
    workers_killed: int = 0
    """In place of a whole server."""
    operations: int = 0
    acknowledged: int = 0
    repeats: int = 0
    refused: int = 0
    calls: int = 0
    streams: int = 0
    reconnects: int = 0
    """Of streams, each from where it was broken off."""
    resets: int = 0
    """Streams that were told to begin anew."""
    model_calls: int = 0
    tool_runs: int = 0
    states: Counter[str] = field(default_factory=Counter)
    """Of the turns that are stored in the end."""
    looks: int = 0
    seconds: float = 0.0
    anomalies: list[str] = field(default_factory=list)
    folder: Path | None = None
    """Where logs and what was stored are kept, if there were anomalies."""

    def lines(self) -> list[str]:
        faults, turns = self.faults, ", ".join(f"{n} {state}" for state, n in sorted(self.states.items()))
        return [
            f"{faults.total():7} faults on {self.settings.database} in {self.seconds:.0f} s",
            *(
                f"{faults[kind]:7} {TOLD[kind].format(calls=self.calls, workers=self.workers_killed)}"
                for kind in weights(self.settings.database)
            ),
            f"{self.operations:7} requests, {self.repeats} of them repeats",
            f"{self.acknowledged:7} acknowledged, {self.refused} told to try again",
            f"{self.streams:7} streams, {self.reconnects} reconnects, {self.resets} begun anew",
            f"{self.model_calls:7} model calls, {self.tool_runs} runs of tools; stored turns: {turns}",
            f"{self.looks:7} looks at the database",
            f"{len(self.anomalies):7} anomalies",
        ]


async def run(settings: Settings, say: Callable[[str], None] = print) -> Report:
    """Ends what it started and removes its files in every case; files are kept if there were anomalies."""
    folder = Path(tempfile.mkdtemp(prefix="hector-kill-"))
    report = Report(settings)
    started = time.monotonic()
    history = History()
    try:
        async with (
            _opened(settings.database, folder) as store,
            RecordingModel(history, random.Random(settings.seed)) as model,
        ):
            hector = Hector(folder, store, model.url, without=settings.without)
            try:
                await _bounded(_Suite(settings, history, store, hector, report, say), report)
            finally:
                await hector.end_all()
                report.anomalies += _complaints(hector)
                if report.anomalies:
                    await store.keep(folder)
            report.model_calls = model.asked
    finally:
        report.seconds = time.monotonic() - started
        if report.anomalies or not isinstance(sys.exception(), asyncio.CancelledError | None):
            _keep_history(history, started, folder / "history.txt")
            (folder / "anomalies.txt").write_text("\n".join([f"seed {settings.seed}", *report.anomalies]))
            report.folder = folder
            say(f"what was stored, logs and history are in {folder}")
        else:
            shutil.rmtree(folder)
    return report


@contextlib.asynccontextmanager
async def _opened(database: DatabaseName, folder: Path) -> AsyncIterator[Store]:
    """Empty."""
    if database == "sqlite":
        yield SqliteFile(folder / "sessions.db")
        return
    async with database_of_its_own(database) as store:
        yield store


async def _bounded(suite: "_Suite", report: Report) -> None:
    limit = _LONGEST_START + suite.settings.faults * _SECONDS_A_FAULT
    if suite.settings.minutes is not None:
        limit = min(limit, _LONGEST_START + suite.settings.minutes * 60)
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
        store: Store,
        hector: Hector,
        report: Report,
        say: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self._history, self._store, self._hector, self._report = history, store, hector, report
        self._say = say
        self._servers: list[Server] = []
        # Not that of the faults, for what clients do depends on what they are told.
        self._clients = Clients(history, lambda: self._servers, random.Random(settings.seed))
        self._checker = Checker()
        self._looking = asyncio.Lock()
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._calls: set[asyncio.Task[Any]] = set()
        self._outage: asyncio.Task[None] | None = None
        """The partition, crash or hang that there is now."""
        self._calling: ToolRun | None = None
        """The tool that has just had its effect, whose process is to be hit."""
        self._changed = asyncio.Event()
        """A fault may be possible that was not."""

    async def run(self) -> None:
        async with self._clients:
            # One after the other: the first makes the database.
            for place in range(SERVERS):
                self._servers.append(await self._serve(place))
                await self._until_ready(self._servers[-1])
            async with self._group:
                clients = [self._start(self._clients.work()) for _ in range(CLIENTS)]
                telling = self._start(self._tell())
                await self._make_faults()
                if self._report.anomalies:
                    for task in self._tasks:
                        task.cancel()
                else:
                    self._clients.stopping = True
                    await asyncio.wait(clients)
                    await self._clients.settle()
                    telling.cancel()
            await self._look_at_the_end(quiet=not self._report.anomalies)
            if not self._report.anomalies:
                await self._stop_cleanly()
        self._report.anomalies += [f"no answer for {text}" for text in self._clients.unanswered]

    async def _serve(self, place: int) -> Server:
        has_workers = place == 0 and random.Random(f"workers/{self.settings.seed}").random() < _WITH_WORKERS
        return await self._hector.serve(workers=2 if has_workers else 1)

    # --- faults

    async def _make_faults(self) -> None:
        await self._clients.until_answered(10, patience=15)
        minutes = self.settings.minutes
        over = math.inf if minutes is None else time.monotonic() + minutes * 60
        due: list[PlannedFault] = []
        for fault in plan(self.settings.database, self.settings.faults, self.settings.seed):
            await asyncio.sleep(fault.after)
            if not fault.at_once:
                await self._clients.until_answered(3, patience=2)
            self._calling = None
            if fault.in_a_call and fault.kind in {"kill", "stop", "pause"}:
                self._calling = await Ledger(self._hector.ledger.path).until_run(
                    _WHERE_IT_HURTS, _PATIENCE_FOR_A_CALL
                )
            due = await self._make_due([*due, fault], leave=_MOST_POSTPONED)
            if self._report.anomalies:
                return
            if time.monotonic() > over:
                break
        await self._make_due(due, leave=0)

    async def _make_due(self, due: list[PlannedFault], *, leave: int) -> list[PlannedFault]:
        """Make what can be made now; returns when no more are left than may be, with those."""
        while True:
            self._changed.clear()
            due = [fault for fault in due if not self._made(fault)]
            if len(due) <= leave or self._report.anomalies:
                return due
            await self._changed.wait()

    def _made(self, fault: PlannedFault) -> bool:
        made = self._make(fault, random.Random(fault.seed))
        if made:
            self._report.faults[fault.kind] += 1
            if self._report.faults.total() % _CALL_EVERY == 0:
                self._call()
        return made

    def _make(self, fault: PlannedFault, rng: random.Random) -> bool:
        """False if that is not possible now."""
        match fault.kind:
            case "kill":
                return self._kill(rng, during_a_start=fault.during_a_start)
            case "stop":
                return self._stop(rng)
            case "pause":
                if not self._serving or any(server.paused for server in self._serving):
                    return False
                _ = self._start(self._pause(self._choose(self._serving, rng), rng))
            case "delete":
                _ = self._start(self._clients.delete(self._clients.choose_place(rng)))
            case "kill call":
                return self._call(kill_after=rng.uniform(0.2, 2.0))
            case kind:
                return self._make_on_server(kind, rng)
        return True

    def _make_on_server(self, kind: ServerFault, rng: random.Random) -> bool:
        assert isinstance(self._store, OnServer), "a file has none of these faults"
        if not self._serving:
            return False
        chosen = rng.choice(self._serving)
        seconds = LEASE_TTL * rng.uniform(1.5, 3)
        match kind:
            case "cut connections":
                _ = self._start(self._and_look(self._start(self._store.cut_connections(chosen.way))))
                return True
            case "lose answers":
                losing = self._start(chosen.link.lose_answers(rng.uniform(0, _LONGEST_SILENCE)))
                _ = self._start(self._and_look(losing))
                return True
            case _ if self._outage and not self._outage.done():
                return False
            case "partition":
                outage = chosen.link.hold_back(seconds, then_cut=rng.random() < 0.5)
            case "crash database":
                outage = self._store.crash()
            case "freeze database":
                outage = self._store.freeze(seconds)
            case _:
                assert_never(kind)
        self._outage = self._start(outage)
        _ = self._start(self._and_look(self._outage))
        return True

    def _kill(self, rng: random.Random, *, during_a_start: bool) -> bool:
        """One that serves, which may stand still; sometimes the last one, or one that is just starting."""
        alive = [server for server in self._servers if not server.killed]
        serving = [server for server in alive if server.serving]
        if not alive or (len(serving) < SERVERS and not during_a_start):
            return False
        killed = self._choose(alive, rng)
        workers = killed.replicas if killed.workers > 1 and killed.serving and not killed.paused else []
        # Never the last one, so that somebody accepts what comes.
        if len(workers) > 1 and rng.random() < _ONE_WORKER:
            killed.kill_worker(self._choose_replica(workers, rng))
            self._report.workers_killed += 1
            _ = self._start(self._look())
            return True
        killed.kill()
        _ = self._start(self._restart(self._servers.index(killed), killed))
        return True

    def _stop(self, rng: random.Random) -> bool:
        serving = [server for server in self._serving if not server.paused]
        if len(serving) < SERVERS:
            return False
        stopped = self._choose(serving, rng)
        stopped.stop()
        _ = self._start(self._restart(self._servers.index(stopped), stopped))
        return True

    def _choose(self, servers: Sequence[Server], rng: random.Random) -> Server:
        calling = [server for server in servers if self._calling and self._calling.pid in server.replicas]
        return calling[0] if calling else rng.choice(servers)

    def _choose_replica(self, pids: Sequence[int], rng: random.Random) -> int:
        return self._calling.pid if self._calling and self._calling.pid in pids else rng.choice(pids)

    async def _restart(self, place: int, killed: Server) -> None:
        self._servers[place] = started = await self._serve(place)
        status = await killed.wait()
        if killed.stopped and status:
            self._report.anomalies.append(f"{killed.log.name} was told to stop and ended with {status}")
        _ = self._start(self._until_gone(killed))
        if await self._until_ready(started):
            await self._look()

    async def _until_gone(self, killed: Server) -> None:
        if await self._hector.until_gone(killed.way):
            self._clients.server_is_gone(killed)
        else:
            self._report.anomalies.append(f"the connections of {killed.log.name} outlive it")
            self._changed.set()

    async def _until_ready(self, server: Server) -> bool:
        """False if it was killed before."""
        try:
            ready = await server.ready()
        except StartError as error:
            self._report.anomalies.append(str(error))
            ready = False
        if ready:
            self._clients.server_is_ready()
        self._changed.set()
        return ready

    async def _pause(self, server: Server, rng: random.Random) -> None:
        pids = server.replicas
        one = len(pids) > 1 and rng.random() < _ONE_WORKER
        server.pause([self._choose_replica(pids, rng)] if one else pids)
        try:
            await asyncio.sleep(LEASE_TTL * rng.uniform(1.5, 3))
        finally:
            server.go_on()
        self._changed.set()
        await self._look()

    async def _and_look(self, work: asyncio.Task[None]) -> None:
        """A task, which ends by itself if this is cancelled before it begins."""
        await work
        self._changed.set()
        await self._look()

    def _call(self, *, kill_after: float | None = None) -> bool:
        self._calls = {call for call in self._calls if not call.done()}
        if len(self._calls) == _MOST_CALLS:
            return False
        self._calls.add(call := self._start(self._clients.call(self._hector, kill_after=kill_after)))
        call.add_done_callback(lambda _: self._changed.set())
        return True

    @property
    def _serving(self) -> list[Server]:
        return [server for server in self._servers if server.serving]

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
                snapshot = await self._store.read(touched)
            except UnreadableError:
                self._history.touch(touched)
                return
            self._judge(snapshot, final=False)
            self._report.anomalies += await self._store.crowd()
            self._changed.set()

    def _judge(self, snapshot: Snapshot, *, final: bool) -> None:
        self._report.looks += 1
        # After the snapshot, so that what is stored has happened.
        for tool_run in self._hector.ledger.news():
            self._history.tool_ran(tool_run)
        found = [*map(str, self._checker.check(self._history, snapshot, final=final)), *self._clients.untrue]
        self._report.anomalies = list(dict.fromkeys([*self._report.anomalies, *found]))

    async def _look_at_the_end(self, *, quiet: bool) -> None:
        """With `quiet` everything must come to its end; without it the run was broken off."""
        report, history = self._report, self._history
        replicas = sum(server.workers for server in self._servers)
        deadline = time.monotonic() + QUIET_WITHIN
        while True:
            snapshot = await self._store.read()
            ended = snapshot.open_turns == 0 and len(snapshot.replicas) == replicas
            if ended or not quiet or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        self._judge(snapshot, final=quiet)
        if quiet and len(snapshot.replicas) != replicas:
            report.anomalies.append(f"{len(snapshot.replicas)} replicas are registered, {replicas} are alive")
        report.anomalies += await self._store.faults()
        sends = [send for place in history.places.values() for each in place.sends.values() for send in each]
        report.operations, report.acknowledged = history.sends, history.acknowledged
        report.calls = self._clients.calls
        report.streams, report.resets = self._clients.streams, self._clients.resets
        report.reconnects = self._clients.reconnects
        report.repeats = history.sends - sum(len(place.sends) for place in history.places.values())
        report.refused = sum(send.refusal is not None for send in sends)
        report.tool_runs = sum(
            len(runs) for place in history.places.values() for runs in place.tool_runs.values()
        )
        report.states.update(
            turn.state if turn.reason is None else f"{turn.state} ({turn.reason})"
            for rows in snapshot.places.values()
            for turn in rows.turns.values()
        )

    async def _stop_cleanly(self) -> None:
        for server in self._servers:
            server.terminate()
        for server in self._servers:
            if status := await server.wait():
                self._report.anomalies.append(f"a server that was told to stop ended with status {status}")
        self._report.anomalies += await self._store.left_behind()

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
