"""Turns as they run in this process: each is a task of its own, whoever listens or has left."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, assert_never

from hector.domain.agents import Agent
from hector.domain.errors import (
    HectorError,
    LeaseLostError,
    NotFoundError,
    OutcomeUnknownError,
    StorageError,
    StoreUnavailableError,
    WaitedTooLongError,
)
from hector.domain.events import EventStore, RunEvent, TurnStarted, TurnWaiting
from hector.domain.ids import SessionKey, new_turn_id
from hector.domain.memory import Tail
from hector.domain.messages import UserMessage
from hector.domain.notices import PushStore
from hector.domain.push import PushConfig
from hector.domain.replicas import OpenTurn, ReplicaStore
from hector.domain.sessions import SessionDirectory
from hector.domain.summaries import SummaryStore
from hector.domain.turns import (
    Arrival,
    Begun,
    Joined,
    Outcome,
    Queued,
    Reason,
    Repeated,
    Turn,
    TurnDirectory,
    TurnState,
    TurnStore,
)
from hector.engine.turn import TurnRun
from hector.runtime.arrivals import Arrivals, accept_surely
from hector.runtime.compactor import Compactor
from hector.runtime.event_log import EventLog
from hector.runtime.feed import TurnFeed
from hector.runtime.following import Followers, until_gone_on
from hector.runtime.handle import TurnHandle
from hector.runtime.local_turns import LocalTurn, LocalTurns
from hector.runtime.queue import SessionQueue
from hector.runtime.unknown import defect, silence
from hector.runtime.wakes import ORPHANS, Signals, Wakes, session_topic

logger = logging.getLogger(__name__)

_LAST_WRITES = 5.0
"""Seconds for what a stop has to write; a database that does not answer is not to hold it up for longer."""
_LAST_STEPS = 1.0
"""Seconds, at least, for what ends by itself then."""
_LOST = "lost"
"""The stop reason of a turn that is not ours any longer."""


class Store(
    TurnStore, TurnDirectory, EventStore, SessionDirectory, SummaryStore, ReplicaStore, PushStore, Protocol
):
    """All that a session store is."""

    @property
    def signals(self) -> Signals: ...

    async def close(self) -> None: ...


class TurnRunner:
    """Accepts messages into one store, and runs the turns that are this replica's."""

    def __init__(
        self,
        store: Store,
        agents: Callable[[str], Agent | None],
        *,
        hands_over: bool = True,
        summarizes: bool = True,
    ) -> None:
        """`hands_over`: there are, or will be, others who run on what a stop breaks off.

        What was begun by others is theirs again in any case. `summarizes`: sessions, behind the replies.
        """
        self._store = store
        self._agents = agents
        self._hands_over = hands_over
        self.replica_id = ""
        """This replica's, as long as it is taken for alive; set by `Replica`."""
        self._locals = LocalTurns()
        """By turn and message id; a session that is deleted and made again may get a message once more."""
        self._queues: dict[SessionKey, SessionQueue] = {}
        self._taking: set[SessionKey] = set()
        """Sessions of which a queue is about to begin a turn: the store may know that before we do."""
        self.wakes = Wakes(store.signals)
        self._followers = Followers(store, self.wakes, self._spawn)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._compactor = Compactor(store, self._spawn, background=summarizes)
        self._arrivals = Arrivals(self._spawn)
        self.closing = False
        """No turn begins any more."""
        self.changed: Callable[[str], None] = _tell_nobody
        """Called with the id of a turn that is in another state."""

    # --- from callers

    async def submit(
        self,
        agent: Agent,
        key: SessionKey,
        message: UserMessage,
        *,
        message_id: str,
        tokens: int,
        resumes: str | None,
        stream: bool,
        push: PushConfig | None = None,
    ) -> TurnHandle:
        """Store the message; its turn runs from then on, whether or not the caller stays."""
        if self.closing:
            raise StoreUnavailableError("this server stops and takes no further messages; try again")
        arrival = Arrival(
            key,
            message,
            message_id,
            new_turn_id(),
            self.replica_id,
            tokens,
            resumes,
            agent.turns.on_busy,
            agent.turns.max_waiting,
            push,
        )
        return await self._arrivals.see_in(
            resumes or arrival.turn_id, self._submit(agent, arrival, stream=stream)
        )

    def listen(self, turn: Turn) -> TurnFeed:
        """What a turn tells, whatever its state."""
        ours = (
            local
            for local in self._locals.of(turn.key)
            # What waits to go on with a paused turn has a feed that begins with that.
            if local.turn_id == turn.id and (local.task or turn.state is TurnState.SUBMITTED)
        )
        local = next(ours, None)
        return local.feed if local and not local.feed.failed else self._feed_elsewhere(turn, "")

    async def until_gone_on(self, paused: Turn) -> None:
        """Return when a paused turn goes on, has ended or is gone. Raises `StorageError`."""
        with self._followers.following(paused.key):
            await until_gone_on(self._store, self.wakes, paused)

    async def cancel(self, key: SessionKey, turn_id: str) -> Turn | None:
        """End a turn as its user wishes; None if it has ended. Raises `NotFoundError` if there is none."""
        local = next((turn for turn in self._locals.of(key) if turn.turn_id == turn_id and turn.task), None)
        if local:
            self._stop(local, Reason.CANCELED)
            return await local.feed.result()
        canceled = await self._store.cancel(key, turn_id)
        if canceled:
            # For who runs it, and who waits behind it or listens to it, elsewhere.
            self.wakes.tell(ORPHANS, turn_id, session_topic(key))
            self.changed(turn_id)
            for local in [turn for turn in self._locals.of(key) if turn.turn_id == turn_id]:
                if local.task:
                    self._stop(local, _LOST)
                else:
                    self._finish(local, canceled)
                    # What waited to resume a paused turn is still in the queue, to be refused in its place.
                    self._queue(key).adopt()
            return canceled
        if await self._store.turn(key.agent_id, key.user_id, turn_id) is None:
            raise NotFoundError("task", turn_id)
        return None

    async def delete(self, key: SessionKey) -> bool:
        """Delete a session; whoever waits for one of its turns gets `canceled`, reason `session deleted`."""
        was_there = await self._store.delete(key)
        self.wakes.tell(ORPHANS, session_topic(key))
        for local in self._locals.of(key):
            self.drop(local.turn_id)
        return was_there

    # --- from the replica's beat

    def running(self) -> set[str]:
        return {local.turn_id for local in self._locals if local.task}

    def knows(self, turn: OpenTurn) -> bool:
        """It runs, waits or arrives here, or may just be beginning; it is not only followed to its end."""
        return turn.key in self._taking or self._answers_for(turn.key, turn.turn_id)

    def _answers_for(self, key: SessionKey, turn_id: str) -> bool:
        ours = (local.turn_id for local in self._locals.of(key) if local.stop_reason != _LOST)
        return turn_id in self._arrivals or turn_id in ours

    def cares_for(self, key: SessionKey) -> bool:
        """Somebody in this process waits for a turn of the session, or listens to one."""
        return bool(self._locals.of(key)) or self._followers.cares_for(key)

    def drop(self, turn_id: str) -> None:
        """Stop what this process does for a turn that is not its own any longer; nothing is written."""
        for local in [turn for turn in self._locals if turn.turn_id == turn_id]:
            if local.task is None:
                self._queue(local.key).wake()
            elif not local.ending:
                # One that just ends is not the store's any longer before it is not ours; if it was lost, its
                # end will tell.
                self._stop(local, _LOST)

    def adopt(self, key: SessionKey, leaked: str | None = None) -> None:
        """Go on with a session whose turn, or whose waiting message, a replica left that is gone.

        `leaked` is a turn that the store says is run here, and is not. What is left of an agent that is not
        served here is for replicas that serve it.
        """
        if self._agents(key.agent_id) and not self.closing:
            self._queue(key).adopt(leaked)

    def take_over(self, left: OpenTurn, leaked: str | None = None) -> None:
        """`adopt`, but a message that has waited too long is withdrawn, for its session may stay busy."""
        agent = self._agents(left.key.agent_id)
        if agent and left.waited > agent.turns.max_wait and not self.closing:
            self._start(self._withdraw_left(left))
        else:
            self.adopt(left.key, leaked)

    async def _withdraw_left(self, left: OpenTurn) -> None:
        try:
            await self._store.withdraw(left.key, left.turn_id, left.message_id, Reason.MAX_WAIT)
        except StorageError as error:  # the next look finds it again
            logger.debug("a message that waited too long still waits: %s", error)
        else:
            self.wakes.tell(left.turn_id, session_topic(left.key))
            self.adopt(left.key)

    # --- the end

    async def close(self, drain_timeout: float) -> None:
        """Let running turns end for `drain_timeout` seconds, then end them; what waits is left for others."""
        self.closing = True
        self._compactor.stop()
        self.wakes.close()
        for queue in self._queues.values():
            queue.wake()
        if running := self._running_tasks():
            await asyncio.wait(running, timeout=drain_timeout)
        over = asyncio.get_running_loop().time() + _LAST_WRITES
        try:
            async with asyncio.timeout_at(over):
                await self._end_running()
        except TimeoutError:
            logger.warning("the session store does not answer; turns that run are left to other replicas")
        for accepting in self._arrivals.tasks:
            accepting.cancel()
        for local in self._locals:
            self._fail(
                local,
                OutcomeUnknownError(
                    "this server stops, and its session store does not answer; repeat the message"
                )
                if local.task
                else StoreUnavailableError(
                    "this server stops; the message is stored and will be answered: repeat it under its id"
                ),
            )
        rest = {task for task in self._tasks if not task.done()}
        if rest:
            left = over - asyncio.get_running_loop().time()
            await asyncio.wait(rest, timeout=max(_LAST_STEPS, left))
        for task in rest:
            task.cancel()

    async def _end_running(self) -> None:
        # A queue may have been about to begin a turn.
        while running := self._running_tasks():
            for local in self._locals:
                self._stop(local, Reason.SHUTDOWN)
            await asyncio.wait(running)

    def _running_tasks(self) -> set[asyncio.Task[Any]]:
        """What runs a turn, or may be about to begin one."""
        running = {local.task for local in self._locals if local.task}
        queues = {queue.task for queue in self._queues.values()}
        return {task for task in running | queues | self._arrivals.tasks if not task.done()}

    # --- accepting

    async def _submit(self, agent: Agent, arrival: Arrival, *, stream: bool) -> TurnHandle:
        accepted = await accept_surely(self._store, arrival, agent.memory.limit)
        key, message_id = arrival.key, arrival.message_id
        match accepted:
            case Begun():
                local = LocalTurn(agent, key, accepted.lease.turn_id, message_id, stream)
                self._begin(local, accepted)
                return TurnHandle(
                    key,
                    local.turn_id,
                    message_id,
                    local.feed,
                    accepted.new_session,
                    accepted.earlier_messages,
                )
            case Queued():
                local = LocalTurn(agent, key, accepted.turn_id, message_id, stream)
                self._wait(local, accepted)
                return TurnHandle(
                    key,
                    local.turn_id,
                    message_id,
                    local.feed,
                    earlier_messages=accepted.earlier_messages,
                    waiting=True,
                )
            case Joined(turn):
                feed = self._feed_of(message_id, turn)
                return TurnHandle(key, turn.id, message_id, feed, repeated=True)
            case Repeated(turn):
                feed = TurnFeed()
                feed.end(turn)
                return TurnHandle(key, turn.id, message_id, feed, repeated=True)
            case _:
                assert_never(accepted)

    def _feed_of(self, message_id: str, turn: Turn) -> TurnFeed:
        local = self._locals.find(turn.key, turn.id, message_id)
        if local and not local.feed.failed:
            return local.feed
        return self._feed_elsewhere(turn, message_id)

    def _feed_elsewhere(self, turn: Turn, message_id: str) -> TurnFeed:
        if not turn.state.terminal:
            self.adopt(turn.key)  # its replica may be gone
        return self._followers.feed(turn.key, turn.id, message_id)

    # --- running

    def _begin(self, local: LocalTurn, begun: Begun) -> None:
        self._locals.add(local)
        local.task = self._spawn(self._run_to_end(local, begun))
        self.changed(local.turn_id)
        if self.closing:  # it was asked for before
            self._stop(local, Reason.SHUTDOWN)

    async def _run_to_end(self, local: LocalTurn, begun: Begun) -> None:
        local.started = True
        log = EventLog(self._store, lambda: run.lease, lambda: self.wakes.tell(local.turn_id))

        def tell(event: RunEvent) -> None:
            log.add(local.feed.publish(event))

        async def end() -> None:
            local.ending = True
            await log.settle()

        run = TurnRun(
            begun,
            local.agent,
            self._store,
            tell,
            make_room=lambda: self._room(local, begun.lease.run_seq),
            before_end=end,
            # Who listens is told, and may ask again; the turn goes on, and keeps what the model has said.
            on_silence=lambda: local.feed.fail(silence()),
            stream=local.stream,
        )
        local.feed.begin(begun.lease.attempt)
        tell(TurnStarted(local.turn_id))
        try:
            if local.stop_reason:
                await self._settle(local, run)
            else:
                self._finish(local, await run.run())
                self._compactor.after_turn(local.agent, local.key, run.tokens)
        except asyncio.CancelledError:
            if local.stop_reason is None:
                raise  # the event loop itself ends
            await self._settle(local, run)
        except LeaseLostError:
            # A beat that finds the same must not cancel the task once more: nobody would be told the end.
            local.stop_reason = _LOST
            self._after_loss(local)
        except HectorError as error:
            self._fail(local, error)
        except Exception as error:  # noqa: BLE001  # whoever waits must be told something
            self._fail(local, defect(error))
        finally:
            # The session is free, whatever became of the turn.
            self._locals.remove(local)
            self.wakes.tell(local.turn_id, session_topic(local.key))
            await log.stop()

    def _room(self, local: LocalTurn, before: int) -> Awaitable[Tail] | None:
        made = self._compactor.make_room(local.agent, local.key)
        if made is None:
            return None

        async def room() -> Tail:
            await made
            return await self._store.tail(local.key, before, local.agent.memory.limit)

        return room()

    async def _settle(self, local: LocalTurn, run: TurnRun) -> None:
        """End a turn that was stopped from within this process."""
        assert local.stop_reason, "only what was stopped is settled"
        try:
            if turn := await self._settled(local, run, local.stop_reason):
                self._finish(local, turn)
            else:
                self._after_loss(local)
        except HectorError as error:
            self._fail(local, error)
        except Exception as error:  # noqa: BLE001  # whoever waits must be told something
            self._fail(local, defect(error))

    async def _settled(self, local: LocalTurn, run: TurnRun, reason: str) -> Turn | None:
        """The ended turn; None if it was not ours to end."""
        if reason == _LOST:
            return None
        try:
            others = self._hands_over or local.adopted
            if reason == Reason.SHUTDOWN and others and run.can_go_on_elsewhere():
                await self._store.hand_over(run.lease)
                self.wakes.tell(ORPHANS, session_topic(local.key))
                logger.info("turn %s is handed over to other replicas", local.turn_id)
                return None
            return await self._store.end(run.lease, [], _stopped(run, reason))
        except LeaseLostError:
            # Or the lease is ours, and went on by an append whose commit got no answer.
            return await self._store.cancel(local.key, local.turn_id) if reason == Reason.CANCELED else None

    def _after_loss(self, local: LocalTurn) -> None:
        """Others have the turn, or will, or its session is gone: give the caller what becomes of it."""
        logger.info(
            "turn %s of agent %s is not this replica's any longer; nothing more is written for it",
            local.turn_id,
            local.key.agent_id,
        )
        # Not in this task: the queue of the session waits for it, and may have to run the turn on.
        self._start(self._followers.follow(local.key, local.turn_id, local.message_id, local.feed))
        self.adopt(local.key)

    def _stop(self, local: LocalTurn, reason: str) -> None:
        if local.task and not local.task.done() and local.stop_reason is None:
            local.stop_reason = reason
            # A task that is cancelled before its first step would run nothing, not even its end.
            if local.started:
                local.task.cancel()

    # --- waiting

    def _wait(self, local: LocalTurn, queued: Queued) -> None:
        self._locals.add(local)
        local.feed.waits(TurnWaiting(local.turn_id, queued.ahead))
        loop = asyncio.get_running_loop()
        local.deadline = loop.call_later(local.agent.turns.max_wait, self._waited_enough, local)
        self._queue(local.key).wake()

    def _waited_enough(self, local: LocalTurn) -> None:
        self._start(self._withdraw(local, Reason.MAX_WAIT))

    async def _withdraw(self, local: LocalTurn, reason: str) -> None:
        try:
            turn = await self._store.withdraw(local.key, local.turn_id, local.message_id, reason)
        except Exception as error:  # noqa: BLE001  # whoever waits must be told something
            local.feed.fail(error if isinstance(error, HectorError) else defect(error))
            # It still stands in the queue, and nobody waits for it any more.
            loop = asyncio.get_running_loop()
            local.deadline = None if self.closing else loop.call_later(1.0, self._waited_enough, local)
            return
        if turn is None:  # it has just begun
            return
        if turn.reason == Reason.MAX_WAIT:
            self._finish(local, turn)
        else:
            self._fail(local, WaitedTooLongError(turn.id))
        self._queue(local.key).wake()

    def waits_here(self, key: SessionKey) -> bool:
        return any(local.task is None for local in self._locals.of(key))

    async def take(self, key: SessionKey, leaked: str | None) -> asyncio.Task[None] | None:
        agent = self._agents(key.agent_id)
        if agent is None:
            return None
        if leaked and self._answers_for(key, leaked):  # it was not known a moment ago
            leaked = None
        settings = agent.turns
        self._taking.add(key)
        try:
            taken = await self._store.take(
                key,
                self.replica_id,
                agent.memory.limit,
                settings.recovery,
                leaked,
                max_wait=settings.max_wait,
            )
        finally:
            self._taking.discard(key)
        if taken.withdrawn:  # their own deadlines came too late, or were those of a process that is gone
            self.wakes.tell(*taken.withdrawn, session_topic(key))
            self._start(self._look(key))
        if taken.ended:
            logger.warning("turn %s, which nobody ran any more, is ended", taken.ended)
        begun = taken.begun
        if begun is None:
            return None
        if begun.lease.attempt > 1:
            logger.warning("turn %s goes on here, attempt %d", begun.lease.turn_id, begun.lease.attempt)
        # The message that the run answers; after a crash there may be more of the run behind it.
        message_id = next(each.message_id or "" for each in begun.own if each.seq == begun.lease.run_seq)
        local = self._locals.find(key, begun.lease.turn_id, message_id)
        if local is None or local.task:
            # Its replica is gone, or we lost it, and its run is still being broken off. Somebody may listen
            # to it on another replica.
            local = LocalTurn(agent, key, begun.lease.turn_id, message_id, stream=True, adopted=True)
        if local.deadline:
            local.deadline.cancel()
        self._begin(local, begun)
        return local.task

    async def _look(self, key: SessionKey) -> None:
        """`look`, while the queue waits for a turn that runs."""
        try:
            await self.look(key)
        except StorageError as error:  # the queue looks again when that turn has ended
            logger.debug("nobody knows who waits in vain: %s", error)

    async def look(self, key: SessionKey) -> None:
        """Read the queue; those who wait here in vain are told."""
        # Before the look: who comes later is not in it.
        waiting = [local for local in self._locals.of(key) if local.task is None]
        state = await self._store.queue(key)
        for local in waiting:
            left = (local.turn_id, local.message_id) not in state.waiting
            if left and local.task is None and not local.feed.ended:
                # It was not we who began it, or it ended without a run.
                self._leave(local)
                self._start(self._followers.follow(local.key, local.turn_id, local.message_id, local.feed))

    def _queue(self, key: SessionKey) -> SessionQueue:
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = SessionQueue(key, self, self.wakes)
            queue.task = self._spawn(self._serve(queue))
        return queue

    async def _serve(self, queue: SessionQueue) -> None:
        try:
            await queue.serve()
        finally:
            del self._queues[queue.key]

    # --- common

    def _finish(self, local: LocalTurn, turn: Turn) -> None:
        self._leave(local)
        local.feed.end(turn)

    def _fail(self, local: LocalTurn, error: HectorError) -> None:
        self._leave(local)
        local.feed.fail(error)

    def _leave(self, local: LocalTurn) -> None:
        if local.deadline:
            local.deadline.cancel()
        self._locals.remove(local)
        self.changed(local.turn_id)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Nobody waits for it, but for the end of this process."""
        self._spawn(work).set_name("hector-background")

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself keeps no reference
        task.add_done_callback(self._tasks.discard)
        return task


def _tell_nobody(turn_id: str) -> None:
    pass


def _stopped(run: TurnRun, reason: str) -> Outcome:
    if reason == Reason.CANCELED:
        return run.canceled()
    return run.failed(reason, "the server was stopped; send the message again", retryable=True)
