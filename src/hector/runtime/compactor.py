"""When sessions are summarised: behind the reply, or before the model is asked where nothing else helps."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from hector.domain.agents import Agent
from hector.domain.errors import GaveWayError, ModelError, StorageError
from hector.domain.ids import SessionKey
from hector.domain.summaries import SummaryStore
from hector.engine.defects import describe_defect

logger = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds for which a turn waits for a summary; then it is sent what fits its budget."""
_FIRST_REST, _LONGEST_REST = 5.0, 300.0
"""Seconds for which an agent's summaries rest after one that failed; doubled by each that follows."""


class Compactor:
    """Summarises sessions, each once at a time. No lease is held for it: turns go on meanwhile."""

    def __init__(
        self,
        store: SummaryStore,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        *,
        background: bool,
    ) -> None:
        """Without `background`, for a process that is about to leave, only what a turn needs is done."""
        self._store, self._spawn, self._background = store, spawn, background
        self._jobs: dict[SessionKey, asyncio.Task[None]] = {}
        self._rests: dict[str, tuple[float, float]] = {}
        """By agent: until when by the loop's clock, and for how long."""
        self._stopped = False

    def after_turn(self, agent: Agent, key: SessionKey, tokens: int) -> None:
        """`tokens`: those of the latest summary and of all messages after it, or no fewer than the budget."""
        compaction = agent.memory.compaction
        if self._background and compaction and tokens > compaction.due_above and self._may_start(agent):
            _ = self._job(agent, key)

    def make_room(self, agent: Agent, key: SessionKey) -> Awaitable[None] | None:
        """A summary now, as far as it is to be had soon; None where none is."""
        return self._waited(self._job(agent, key)) if self._may_start(agent) else None

    def stop(self) -> None:
        """What is under way is broken off: whoever runs the next turn of the session does it again."""
        self._stopped = True
        for job in self._jobs.values():
            job.cancel()

    def _may_start(self, agent: Agent) -> bool:
        until, _ = self._rests.get(agent.name, (0.0, 0.0))
        return (
            agent.summarizer is not None and not self._stopped and asyncio.get_running_loop().time() >= until
        )

    def _job(self, agent: Agent, key: SessionKey) -> asyncio.Task[None]:
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = self._spawn(self._summarize(agent, key))
            job.add_done_callback(lambda _: self._jobs.pop(key))
        return job

    async def _waited(self, job: asyncio.Task[None]) -> None:
        await asyncio.wait((job,), timeout=PATIENCE)

    async def _summarize(self, agent: Agent, key: SessionKey) -> None:
        assert agent.summarizer, "only what has one is summarised"
        try:
            # Turns that end meanwhile may make another one due.
            while covered := await agent.summarizer.summarize(self._store, key):
                logger.info("agent %s: %d messages of a session are summarised", agent.name, covered)
        except GaveWayError:
            # The next turn's end asks for it again.
            logger.debug("agent %s: a summary gave way to a conversation", agent.name)
        except (ModelError, StorageError) as error:
            logger.warning(
                "agent %s: a session is not summarised, and cut to its budget; the next try is in %g s: %s",
                agent.name,
                self._rest(agent),
                error,
            )
        except Exception as error:  # noqa: BLE001  # a turn may wait for it, and goes on without
            logger.error("a summary has a defect:\n%s", describe_defect(error))  # noqa: TRY400
            self._rest(agent)
        else:
            self._rests.pop(agent.name, None)

    def _rest(self, agent: Agent) -> float:
        _, last = self._rests.get(agent.name, (0.0, 0.0))
        pause = min(2 * last, _LONGEST_REST) if last else _FIRST_REST
        self._rests[agent.name] = asyncio.get_running_loop().time() + pause, pause
        return pause
