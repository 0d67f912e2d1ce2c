"""Replicas: the processes that share a store, and how they learn that one has died."""

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """A turn that runs, or a message that waits for its turn."""

    key: SessionKey
    turn_id: str
    working: bool
    """It runs, or ran; otherwise it (or a message for it) waits."""


class ReplicaLocks(Protocol):
    """Locks that the operating system frees when a replica's process ends, however it ends."""

    def is_free(self, replica_id: str) -> bool:
        """Nobody holds that replica's lock: it is dead."""
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

    async def end_orphan(self, orphan: OpenTurn, replica_id: str) -> bool:
        """End a turn that nobody runs as failed: `crashed`, or `tool_unknown`. False if somebody does.

        A turn of `replica_id` itself counts as run by nobody: whoever asks knows that it does not.
        """
        ...
