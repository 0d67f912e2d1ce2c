"""A turn: one request and all that the agent did to answer it; the unit that is durable."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol, TypeAlias

from hector.domain.ids import SessionKey
from hector.domain.memory import Tail, TailLimit
from hector.domain.messages import Message, ModelMessage, StoredMessage, Usage, UserMessage, join_text
from hector.domain.push import PushConfig


class TurnState(StrEnum):
    """A2A's task states."""

    SUBMITTED = "submitted"
    WORKING = "working"
    INPUT_REQUIRED = "input_required"
    AUTH_REQUIRED = "auth_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    REJECTED = "rejected"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL

    @property
    def paused(self) -> bool:
        return self in _PAUSED


_TERMINAL = frozenset({TurnState.COMPLETED, TurnState.FAILED, TurnState.CANCELED, TurnState.REJECTED})
_PAUSED = frozenset({TurnState.INPUT_REQUIRED, TurnState.AUTH_REQUIRED})


class Reason:
    """Why a turn ended as it did, where its state does not say it. Model errors add theirs (errors.py)."""

    CRASHED = "crashed"
    """Its replica died, and it was not resumed."""
    TOOL_UNKNOWN = "tool_unknown"
    """It failed after a tool with side effects was called: nobody may run it again unasked."""
    SHUTDOWN = "shutdown"
    """Its replica was stopped before it could end."""
    CANCELED = "canceled"
    """By its user."""
    MAX_WAIT = "max_wait"
    """It waited for its session longer than `turns.max_wait`."""
    SESSION_DELETED = "session deleted"
    OUT_OF_STEPS = "out_of_steps"
    """The model went on calling tools beyond `turns.max_steps`."""
    INTERNAL = "internal_error"
    SUPERSEDED = "superseded"
    WAITING_FOR_INPUT = "waiting for input"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of a turn ends."""

    state: TurnState
    reason: str | None = None
    error: str | None = None
    """One sentence for the caller; None if nothing went wrong."""
    usage: Usage = Usage()
    """Of the model calls that were not counted yet, with a message that was appended."""
    retryable: bool = False
    """The same request may succeed later."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn as it stands in the store."""

    id: str
    key: SessionKey
    state: TurnState
    reason: str | None = None
    error: str | None = None
    retryable: bool = False
    attempt: int = 1
    """Which run of it this is; raised when it is run again after a crash."""
    superseded: bool = False
    usage: Usage = Usage()
    messages: tuple[StoredMessage, ...] = ()
    """Its own, by seq; empty where they were not read."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def reply(self) -> str:
        """What the agent said to the user at the end."""
        last = self.last
        return join_text(last.parts) if isinstance(last, ModelMessage) and not last.calls else ""

    @property
    def last(self) -> Message | None:
        """Of its messages, but for those that wait to go on with it."""
        return next((stored.message for stored in reversed(self.messages) if stored.seq is not None), None)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message of a user as it reaches a session."""

    key: SessionKey
    message: UserMessage
    message_id: str
    turn_id: str
    """The new turn's, if it makes one; made by the caller so that an operation can be run again."""
    replica_id: str
    """Whose work the turn is."""
    tokens: int = 0
    resumes: str | None = None
    """The paused turn that the client named."""
    on_busy: Literal["wait", "reject"] = "wait"
    max_waiting: int = 100
    push: PushConfig | None = None
    """Made with the turn, or with the run that goes on with it; a repeat makes none."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A replica's fenced right to run the current turn of a session."""

    key: SessionKey
    turn_id: str
    owner: str
    epoch: int
    attempt: int
    seq: int
    """Of the session's last message; only the holder adds to the session."""
    run_seq: int
    """Of the user's message that this run answers."""
    resumed: bool = False
    """The turn was paused before."""
    usage: Usage = Usage()
    """Of the turn's model calls so far, as they are counted in the store."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The turn is this replica's to run."""

    lease: Lease
    tail: Tail
    """What lies before, for the model."""
    own: tuple[StoredMessage, ...]
    """The turn's own messages so far, the new one last; more than one if it was paused."""
    new_session: bool = False
    earlier_messages: int = 0
    """How many the session had."""


@dataclass(frozen=True, slots=True)
class Queued:
    """Stored, and waiting for the turns before it."""

    turn_id: str
    ticket: int
    ahead: int
    earlier_messages: int = 0


@dataclass(frozen=True, slots=True)
class Joined:
    """A repeat of a message whose turn waits or runs, here or on another replica."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Repeated:
    """A repeat of a message that was answered: the turn as it stood when that message's run ended."""

    turn: Turn


Accepted: TypeAlias = Begun | Queued | Joined | Repeated


@dataclass(frozen=True, slots=True)
class Taken:
    """What going on with a session led to."""

    begun: Begun | None = None
    """A turn that is this replica's to run now."""
    ended: str | None = None
    """The id of a turn that nobody ran, and that was ended in place of its replica."""
    withdrawn: tuple[str, ...] = ()
    """The ids of turns for which messages had waited too long."""


@dataclass(frozen=True, slots=True)
class NewMessage:
    message: Message
    tokens: int = 0
    usage: Usage = Usage()
    """Of the model call that it came of; counted with its turn when the message is appended."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What an agent wants for turns whose replica died."""

    on_crash: Literal["resume", "fail"] = "resume"
    max_attempts: int = 3
    """How often one turn is run before it is given up; one that was handed over may be run once more."""


class TurnStore(Protocol):
    """Where turns are made durable. Each method is one transaction, all or nothing.

    Every method may raise `StoreUnavailableError`, after which nothing was changed, or `OutcomeUnknownError`,
    after which the same call is safe to repeat.
    """

    async def accept(self, arrival: Arrival, limit: TailLimit) -> Accepted:
        """Store the message and begin its turn, or queue it, or find what it repeats.

        Raises `ConflictError`, `BusyError`, `QueueFullError`, `NotPausedError`, `NotFoundError` (named turn).
        """
        ...

    async def take(
        self,
        key: SessionKey,
        replica_id: str,
        limit: TailLimit,
        recovery: Recovery,
        leaked: str | None = None,
        *,
        max_wait: float = math.inf,
    ) -> Taken:
        """Go on with a session whose turn nobody runs, or that is free.

        A turn whose replica is dead or handed it over comes first: it is run on, or ended. Then the waiting
        turn with the lowest ticket begins, if it is ours or nobody's. On the way a waiting message is refused
        that named a turn which is no longer paused, and withdrawn if it has waited for more than `max_wait`
        seconds by the store's clock. `leaked` is a turn that is this replica's by the
        store, and run by nobody as the caller knows.
        """
        ...

    async def hand_over(self, lease: Lease) -> None:
        """Leave a running turn to whoever comes first. Raises `LeaseLostError`."""
        ...

    async def append(self, lease: Lease, messages: Sequence[NewMessage]) -> Lease:
        """Add messages to the running turn. Raises `LeaseLostError`."""
        ...

    async def end(self, lease: Lease, messages: Sequence[NewMessage], outcome: Outcome) -> Turn:
        """Add the last messages, set the outcome and release the lease. Raises `LeaseLostError`.

        Run again after `OutcomeUnknownError` it finds that it had succeeded.
        """
        ...

    async def withdraw(self, key: SessionKey, turn_id: str, message_id: str, reason: str) -> Turn | None:
        """Take a waiting message out of the queue; None if it does not wait (any longer)."""
        ...

    async def cancel(self, key: SessionKey, turn_id: str) -> Turn | None:
        """End a turn as canceled by its user; None if it has ended, or is none of this session.

        One that runs is taken away from its replica, whose next guarded write fails.
        """
        ...

    async def turn(self, agent_id: str, user_id: str, turn_id: str) -> Turn | None:
        """A turn with its messages; None if there is none (any longer)."""
        ...


@dataclass(frozen=True, slots=True)
class TurnFilter:
    """Which turns of a user's are listed; what is None admits all."""

    session_id: str | None = None
    state: TurnState | None = None
    changed_since: datetime | None = None
    """Those that came into their state then or later."""


@dataclass(frozen=True, slots=True)
class TurnPlace:
    """Where in the order of a listing a turn stands."""

    changed_at: datetime
    turn_id: str


@dataclass(frozen=True, slots=True)
class TurnPage:
    turns: Sequence[Turn]
    total: int
    """How many there are on all pages together, as this one was read."""
    next: TurnPlace | None = None
    """The page after begins behind it; None on the last."""


Wanted: TypeAlias = Literal["questions", "replies", "all"]
"""Which messages of listed turns are read: what the paused ones ask; of each its last message, too; all."""


class TurnDirectory(Protocol):
    """Turns to look at."""

    async def turns(
        self,
        agent_id: str,
        user_id: str,
        which: TurnFilter,
        *,
        limit: int,
        after: TurnPlace | None = None,
        wanted: Wanted = "questions",
    ) -> TurnPage:
        """By the time when they came into their states, newest first, and then by id, the greatest first.

        A turn that changes while pages are read goes to the front: the pages that come repeat none, and leave
        out only what has changed.
        """
        ...


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """How an agent treats its turns."""

    on_busy: Literal["wait", "reject"] = "wait"
    max_wait: float = 300.0
    """Seconds a message waits for its session."""
    max_waiting: int = 100
    max_steps: int = 20
    """Model calls in one turn."""
    recovery: Recovery = Recovery()
    event_retention: float = 300.0
    """Seconds after its end for which streams of a turn can go on where they were broken off."""
