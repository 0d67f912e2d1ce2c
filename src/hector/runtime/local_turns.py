"""The turns that this process answers for: they wait here, or run here."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from hector.domain.agents import Agent
from hector.domain.ids import SessionKey
from hector.runtime.feed import TurnFeed


@dataclass(slots=True, eq=False)
class LocalTurn:
    """A turn that this process answers for: it waits here, or runs here."""

    agent: Agent
    key: SessionKey
    turn_id: str
    message_id: str
    stream: bool
    adopted: bool = False
    """Another replica took its message."""
    feed: TurnFeed = field(default_factory=TurnFeed)
    task: asyncio.Task[None] | None = None
    """Set while it runs."""
    started: bool = False
    """The task has taken its first step."""
    ending: bool = False
    """Its end is being stored."""
    stop_reason: str | None = None
    """Why the task is being cancelled, or needs no cancelling any more."""
    deadline: asyncio.TimerHandle | None = None
    """Of its wait."""


class LocalTurns:
    """The turns that this process answers for. One turn can be there for two messages, of which one waits."""

    def __init__(self) -> None:
        self._by_session: dict[SessionKey, dict[tuple[str, str], LocalTurn]] = {}

    def __iter__(self) -> Iterator[LocalTurn]:
        """Those of this moment; they may be removed meanwhile."""
        return iter([local for session in self._by_session.values() for local in session.values()])

    def of(self, key: SessionKey) -> list[LocalTurn]:
        return list(self._by_session.get(key, {}).values())

    def find(self, key: SessionKey, turn_id: str, message_id: str) -> LocalTurn | None:
        return self._by_session.get(key, {}).get((turn_id, message_id))

    def add(self, local: LocalTurn) -> None:
        self._by_session.setdefault(local.key, {})[local.turn_id, local.message_id] = local

    def remove(self, local: LocalTurn) -> None:
        session = self._by_session.get(local.key, {})
        place = local.turn_id, local.message_id
        if session.get(place) is not local:  # it is run here again, and that is another
            return
        del session[place]
        if not session:
            del self._by_session[local.key]
