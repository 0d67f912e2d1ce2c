"""Who in this process waits for news of a turn or a session, and how other processes are told of ours."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Protocol

from hector.domain.ids import SessionKey


class Signals(Protocol):
    """What the store brings; see its own module."""

    @property
    def prompt(self) -> bool: ...

    def tell(self, topic: str) -> None: ...

    def listen(self, heard: Callable[[str | None], None]) -> None: ...


def session_topic(key: SessionKey) -> str:
    """The same in every process, and without the ids, which are callers' words."""
    name = f"{key.agent_id}\0{key.user_id}\0{key.session_id}"
    return hashlib.sha256(name.encode()).hexdigest()[:32]


ORPHANS = "orphans"
"""The topic of what replicas leave to one another, or take from one another."""


class Bell:
    """Rings when there is news of what somebody waits for. Cleared before each look, it misses none."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    def clear(self) -> None:
        self._rung.clear()

    async def wait(self, seconds: float) -> bool:
        """Return when it rings, or after so many seconds; whether it rang."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        return True


class Wakes:
    """One for each store."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._bells: dict[str, set[Bell]] = {}
        self.closed = False
        """This process stops; who waits is to give up."""
        self.others = True
        """Other replicas may listen."""
        signals.listen(self._heard)

    @property
    def prompt(self) -> bool:
        """Whoever has news tells them; otherwise one must look often."""
        return self._signals.prompt

    @contextlib.contextmanager
    def bell(self, *topics: str) -> Iterator[Bell]:
        bell = Bell()
        for topic in topics:
            self._bells.setdefault(topic, set()).add(bell)
        try:
            yield bell
        finally:
            for topic in topics:
                bells = self._bells[topic]
                bells.remove(bell)
                if not bells:
                    del self._bells[topic]

    def tell(self, *topics: str) -> None:
        """That there is news, here and elsewhere."""
        for topic in topics:
            self._heard(topic)
            if self.others:
                self._signals.tell(topic)

    def close(self) -> None:
        self.closed = True
        self._heard(None)

    def _heard(self, topic: str | None) -> None:
        rung = list(self._bells.values()) if topic is None else [self._bells.get(topic, set())]
        for bells in rung:
            for bell in bells:
                bell.ring()
