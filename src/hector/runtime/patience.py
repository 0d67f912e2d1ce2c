"""Opening session stores whose servers may not be there yet."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from hector.domain.errors import StorageError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 2.0
"""Seconds between tries."""


class Patience:
    """Tries again to open stores that cannot be reached now, and knows meanwhile what is waited for."""

    def __init__(self) -> None:
        self._missing: dict[str, StorageError | None] = {}
        """The stores that are being opened, each with why the last try failed."""

    @property
    def failing(self) -> bool:
        """A store could not be opened when that was tried last."""
        return any(self._missing.values())

    @property
    def problems(self) -> list[str]:
        """What the start waits for."""
        return [
            _told(store, error) if error else f"session store {store!r} is being opened"
            for store, error in self._missing.items()
        ]

    async def open(self, store: str, try_to: Callable[[], Awaitable[T]], seconds: float) -> T:
        """What `try_to` returns; where it fails for now, it is called again for so many seconds.

        Raises its last error.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        pause = _FIRST_PAUSE
        told = ""
        self._missing[store] = None
        while True:
            try:
                opened = await try_to()
            except StorageError as error:
                left = deadline - clock()
                if not error.retryable or left <= 0:
                    raise
                if told != str(error):
                    told = str(error)
                    logger.warning("%s; trying again for up to %.0f s", _told(store, error), left)
                self._missing[store] = error
            else:
                del self._missing[store]
                if told:
                    logger.info("session store %r is open", store)
                return opened
            # No server tells those who cannot reach it that it is there.
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)


def _told(store: str, error: StorageError) -> str:
    # One that is not about the opening may leave the name to whoever tells it.
    return str(error) if repr(store) in str(error) else f"session store {store!r}: {error}"


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in their order; the first error breaks off the others, and is raised after them."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
