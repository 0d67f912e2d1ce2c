"""How processes that share a store wake one another, instead of looking again and again."""

from collections.abc import Callable
from typing import Protocol


class Signals(Protocol):
    """Hints, which may be lost: whoever waits for one looks by itself now and then, too.

    A topic is at most 200 characters of ASCII and names what to look at; what was said is never part of it.
    """

    @property
    def prompt(self) -> bool:
        """What other processes tell arrives at once now; otherwise one must look often."""
        ...

    def tell(self, topic: str) -> None:
        """Tell the other processes, soon and in the background; lost without a word if there is no way."""
        ...

    def listen(self, heard: Callable[[str | None], None]) -> None:
        """From now on, call this on the event loop with each topic that another process tells.

        With None when some may have been missed: when the connection was made, or made again.
        """
        ...

    async def close(self) -> None:
        """What was told is sent first, if that is quick."""
        ...


class NoSignals:
    """Where the database has none, or there is one process alone."""

    prompt = False

    def tell(self, topic: str) -> None:
        pass

    def listen(self, heard: Callable[[str | None], None]) -> None:
        pass

    async def close(self) -> None:
        pass
