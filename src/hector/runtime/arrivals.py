"""Messages on their way into the store, of which nobody knows yet what they begin."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from hector.domain.errors import OutcomeUnknownError, StorageError
from hector.domain.memory import TailLimit
from hector.domain.turns import Accepted, Arrival, TurnStore
from hector.runtime.following import ANSWER_WITHIN
from hector.runtime.unknown import silence

logger = logging.getLogger(__name__)

T = TypeVar("T")
Spawn = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]

_TRIES = 3


class Arrivals:
    """Those of this process: the store may know a turn of theirs before we do."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._turns: Counter[str] = Counter()
        """They are about to begin."""
        self.tasks: set[asyncio.Task[Any]] = set()

    def __contains__(self, turn_id: str) -> bool:
        return turn_id in self._turns

    async def see_in(self, turn_id: str, work: Coroutine[Any, Any, T]) -> T:
        """Its outcome; it goes on whether or not the caller stays.

        Raises `OutcomeUnknownError` if that takes too long, or this process ends meanwhile.
        """
        # A task of its own: what was accepted must run, also if the caller is cancelled in the middle of it.
        task: asyncio.Task[T] = self._spawn(work)
        self.tasks.add(task)
        self._turns[turn_id] += 1
        task.add_done_callback(partial(self._is_in, turn_id))
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await asyncio.shield(task)
        except TimeoutError:
            raise silence() from None
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and not (caller and caller.cancelling()):  # by the end of this process
                raise silence() from None
            raise

    def _is_in(self, turn_id: str, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        self._turns -= Counter([turn_id])
        if not task.cancelled():
            task.exception()  # it is the caller's, who may have left


async def accept_surely(store: TurnStore, arrival: Arrival, limit: TailLimit) -> Accepted:
    """The same arrival again after a commit without an answer: by its turn id it has one effect."""
    unknown: OutcomeUnknownError | None = None
    for _ in range(_TRIES):
        try:
            return await store.accept(arrival, limit)
        except OutcomeUnknownError as error:
            logger.warning("no answer to the commit of message %r", arrival.message_id)
            unknown = error
        except StorageError as error:
            if unknown:
                # That this try changed nothing says nothing of the one before.
                raise unknown from error
            raise
    assert unknown, "each try returned or raised"
    raise unknown
