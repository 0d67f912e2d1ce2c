"""Replicas: the processes that share a store, and how they learn that one has died."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hector.domain.ids import SessionKey


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    id: str
    """Made anew at each start and never used again."""
    label: str
    """For people: the configured name, or the host and process id."""
    ttl: float
    """Seconds after which a counter that stands still means death."""
    counter: int
    lock: str | None = None
    """The name of the lock that it held at its last beat, where locks are a database server's."""


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """A turn that runs, or a message that waits for its turn."""

    key: SessionKey
    turn_id: str
    working: bool
    """It runs, or ran; otherwise it (or a message for it) waits."""
    message_id: str = field(default="", compare=False)
    """Of the message that waits."""
    waited: float = field(default=0.0, compare=False)
    """Seconds, by the store's clock."""


class ReplicaLocks(Protocol):
    """Locks that somebody else frees when a replica's process ends, however it ends."""

    async def freed(self, replicas: Sequence[ReplicaRow]) -> Collection[str]:
        """The ids of those whose lock nobody holds any more; not of those that hold none."""
        ...

    def stillness(self, ttl: float) -> float:
        """Seconds for which the counter of a replica with this ttl, its lock free, must stand still, too."""
        ...


class ReplicaStore(Protocol):
    async def register(self, replica: ReplicaRow) -> None: ...

    async def beat(self, replica_id: str) -> bool:
        """Raise the counter; False if the row is gone: others took this replica for dead."""
        ...

    async def replicas(self) -> Sequence[ReplicaRow]: ...

    async def declare_dead(self, replica: ReplicaRow) -> bool:
        """Remove the row if its counter is still the one that was seen."""
        ...

    async def retire(self, replica_id: str) -> None:
        """Remove one's own row at a clean end."""
        ...

    async def open_turns(self, replica_id: str) -> Sequence[OpenTurn]:
        """The work of this replica; what is missing was taken over or deleted."""
        ...

    async def orphans(self) -> Sequence[OpenTurn]:
        """The work of replicas that are gone."""
        ...
