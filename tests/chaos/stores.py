"""Where the servers under test keep their sessions, as somebody sees it who is none of them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from tests.chaos.database import Snapshot
from tests.chaos.history import Place
from tests.chaos.network import Link

DatabaseName: TypeAlias = Literal["sqlite", "postgres", "mysql"]
DATABASES: tuple[DatabaseName, ...] = ("sqlite", "postgres", "mysql")


class UnreadableError(Exception):
    """It cannot be read now."""


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """How one process reaches the store."""

    section: Mapping[str, Any]
    """For `session_stores.<name>.sql`."""
    link: Link | None = None
    """None: there is no network in between."""


class Store(Protocol):
    async def way(self, processes: int = 1) -> Way:
        """For a process that is about to start, or so many that share it."""
        ...

    async def until_gone(self, way: Way) -> bool:
        """Returns once nothing that a dead process has sent can have an effect; False: it takes too long."""
        ...

    async def read(self, only: Collection[Place] | None = None) -> Snapshot:
        """Everything, or what belongs to some places. Raises `UnreadableError`."""
        ...

    async def crowd(self) -> list[str]:
        """Who has more connections than it may."""
        ...

    async def faults(self) -> list[str]:
        """What is wrong in the database itself, when nobody asks for anything."""
        ...

    async def left_behind(self) -> list[str]:
        """What is still there after all processes have ended well."""
        ...

    async def keep(self, folder: Path) -> None:
        """Save for people what will be gone with the store."""
        ...
