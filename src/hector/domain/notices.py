"""Push notifications: what there is to tell of a turn, and how far each configuration has been told.

What is told follows from the turn's own rows, and each configuration keeps the place that it has reached. So
a turn writes nothing for it, and no crash can come between a change and its notice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hector.domain.ids import SessionKey
from hector.domain.push import PushConfig
from hector.domain.turns import Turn


class Place:
    """Where a notice stands among all of its turn; a later one is greater, whatever happens in between."""

    NOTHING = 0
    SUBMITTED = 1
    REPLY = 2**40
    END = REPLY + 1

    @staticmethod
    def working(run: int) -> int:
        """`run` is 1 for the first, and one more after each pause."""
        return 4 * run

    @staticmethod
    def paused(run: int) -> int:
        return 4 * run + 1


@dataclass(frozen=True, slots=True)
class Notice:
    """One change of a turn's state, or its reply, which comes before its end."""

    place: int
    turn: Turn
    """As it stood then, with no more of its messages than the last of its run."""

    @property
    def is_reply(self) -> bool:
        return self.place == Place.REPLY


class PushTarget(NamedTuple):
    """One configuration of one task."""

    key: SessionKey
    turn_id: str
    config_id: str


@dataclass(frozen=True, slots=True)
class Due:
    """A configuration that has something to be told, as far as the store knows."""

    target: PushTarget
    epoch: int
    """One more with each claim."""


class DuePushes(NamedTuple):
    due: Sequence[Due]
    open: bool
    """There are configurations that may have something to be told later."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A replica's right to tell one configuration, fenced by its epoch."""

    target: PushTarget
    owner: str
    epoch: int
    config: PushConfig
    notices: Sequence[Notice]
    """What is still to be told, in its order."""
    first: bool
    """Nothing was told yet."""
    failures: int = 0
    """In a row."""


class PushStore(Protocol):
    """Configurations, and what is still to be told to each. Each method is one transaction."""

    async def set_push(
        self, agent_id: str, user_id: str, turn_id: str, config: PushConfig
    ) -> PushConfig | None:
        """Make or replace a configuration; it is told the task as it stands, and what comes after that.

        None if there is no such turn. Raises `InvalidError` where the turn has as many as it may.
        """
        ...

    async def pushes(self, agent_id: str, user_id: str, turn_id: str) -> Sequence[PushConfig] | None:
        """By age; None if there is no such turn."""
        ...

    async def delete_push(self, agent_id: str, user_id: str, turn_id: str, config_id: str) -> bool:
        """Nothing more is told to it, but for what is on its way. False if there is no such turn."""
        ...

    async def due_pushes(self, replica_id: str, limit: int) -> DuePushes:
        """What nobody who lives tells, but perhaps this replica."""
        ...

    async def claim_push(self, due: Due, replica_id: str) -> Claim | None:
        """None if there is nothing to tell, or others were faster."""
        ...

    async def told_push(self, claim: Claim, place: int) -> Claim | None:
        """Note that it was told as far as `place`; the claim with what there is to tell by now.

        None where there is nothing, and the claim is given up, or it was ours no longer.
        """
        ...

    async def put_off_push(self, claim: Claim, delay: float, give_up_after: float) -> bool:
        """Give the claim up, to be taken up after so many seconds by the database's clock.

        False if it has failed for `give_up_after` seconds: then what there is to tell by now is left out.
        """
        ...

    async def end_push(self, claim: Claim) -> None:
        """Tell it nothing any more."""
        ...

    async def open_pushes(self, key: SessionKey) -> Sequence[tuple[str, PushConfig]]:
        """Those of turns of a session that have not ended, with the turns' ids."""
        ...
