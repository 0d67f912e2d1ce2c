"""A session: one conversation of one user with one agent."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from hector.domain.ids import SessionKey
from hector.domain.messages import Metadata, StoredMessage


@dataclass(frozen=True, slots=True)
class Session:
    key: SessionKey
    messages: int
    """How many it has; those that wait do not count."""
    created_at: datetime
    updated_at: datetime
    running_turn_id: str | None = None
    waiting: int = 0
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionPage:
    sessions: Sequence[Session]
    next_cursor: str | None = None
    """For the page after; None on the last."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What stands before a waiting message."""

    running_turn_id: str | None
    waiting: Sequence[tuple[str, str]]
    """Turn id and message id of each, by ticket; empty if there is no such session."""


class SessionDirectory(Protocol):
    """Sessions to look at and to delete. Every query names the agent and the user, or is an admin's."""

    async def session(self, key: SessionKey) -> Session | None: ...

    async def sessions(
        self, *, agent_id: str | None, user_id: str | None, limit: int, cursor: str | None = None
    ) -> SessionPage:
        """By last change, newest first. None for all agents or, for an admin, all users."""
        ...

    async def messages(
        self, key: SessionKey, *, before: int | None = None, limit: int = 100
    ) -> Sequence[StoredMessage]:
        """The newest `limit` messages with a seq below `before`, oldest first; none of what is not there."""
        ...

    async def queue(self, key: SessionKey) -> QueueState: ...

    async def create(self, key: SessionKey) -> bool:
        """Make an empty session; False if it exists."""
        ...

    async def delete(self, key: SessionKey) -> bool:
        """Remove a session and all that belongs to it, a running turn included; False if there was none."""
        ...
