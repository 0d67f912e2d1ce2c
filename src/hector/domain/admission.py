"""What becomes of a message that reaches a session; pure.

The table of its cases is tests/unit/domain/test_admission.py.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from hector.domain.errors import BusyError, ConflictError, NotFoundError, NotPausedError, QueueFullError
from hector.domain.turns import Reason, TurnState


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """Read under the lock of the session's row."""

    running_turn_id: str | None
    waiting: int

    @property
    def free(self) -> bool:
        return self.running_turn_id is None and self.waiting == 0


@dataclass(frozen=True, slots=True)
class EarlierFacts:
    """The newest try of the same message id in this session, and its turn."""

    turn_id: str
    arrival_id: str
    """The turn id that its arrival brought (`Claim.turn_id`)."""
    retry: int
    same_content: bool
    waits: bool
    """It stands in the queue."""
    run_state: TurnState | None
    """How the run that this message began ended, if its turn went on after that or never took it.

    None where the turn's own state says it.
    """
    state: TurnState
    reason: str | None
    went_to_named: bool = False
    """A try of it went to the turn that the arriving message names, too."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What the arriving message wants."""

    message_id: str
    turn_id: str
    """The turn it makes if it makes one."""
    resumes: str | None
    on_busy: Literal["wait", "reject"]
    max_waiting: int


@dataclass(frozen=True, slots=True)
class Start:
    """A new turn: at once, or when its ticket comes."""

    retry: int = 0
    supersedes: str | None = None
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """The paused turn goes on: at once, or when the message's ticket comes."""

    turn_id: str
    retry: int = 0
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Continue:
    """This very arrival is stored: its commit got no answer, or the caller asks what became of it."""


@dataclass(frozen=True, slots=True)
class Join:
    turn_id: str


@dataclass(frozen=True, slots=True)
class Return:
    turn_id: str


Decision: TypeAlias = Start | Resume | Continue | Join | Return


def admit(
    session: SessionFacts, earlier: EarlierFacts | None, named_state: TurnState | None, claim: Claim
) -> Decision:
    """Decide, or refuse by raising a `CallerError`.

    `named_state` is the state of the turn that `claim.resumes` names, None if this session has no such turn.
    """
    retry, supersedes = 0, None
    if earlier:
        if not earlier.same_content:
            raise ConflictError(claim.message_id)
        if repeat := _repeat(earlier, claim):
            return repeat
        retry = earlier.retry + 1
        supersedes = earlier.turn_id if earlier.run_state is None else None
    if claim.resumes is not None:
        if named_state is None:
            raise NotFoundError("task", claim.resumes)
        # A turn that failed takes no message, but a repeat of its last one begins a new turn in its place.
        # That one may fail as well, and the next repeat still names the first.
        if not named_state.paused and not (supersedes and earlier and earlier.went_to_named):
            raise NotPausedError(claim.resumes, named_state)
    waits = not session.free
    if waits:
        _check_room(session, claim)
    if claim.resumes is not None and named_state and named_state.paused:
        return Resume(claim.resumes, retry, waits)
    return Start(retry, supersedes, waits)


def _repeat(earlier: EarlierFacts, claim: Claim) -> Continue | Join | Return | None:
    """What answers a repeat; None if it is to be tried again."""
    if earlier.arrival_id == claim.turn_id:
        return Continue()
    if earlier.waits:
        return Join(earlier.turn_id)
    if earlier.run_state is not None:
        return Return(earlier.turn_id) if earlier.run_state.paused else None
    match earlier.state:
        case TurnState.SUBMITTED | TurnState.WORKING:
            return Join(earlier.turn_id)
        case TurnState.COMPLETED | TurnState.INPUT_REQUIRED | TurnState.AUTH_REQUIRED:
            return Return(earlier.turn_id)
        case TurnState.CANCELED:
            return None if earlier.reason == Reason.MAX_WAIT else Return(earlier.turn_id)
        case TurnState.FAILED:
            return Return(earlier.turn_id) if earlier.reason == Reason.TOOL_UNKNOWN else None
        case TurnState.REJECTED:
            return None


def _check_room(session: SessionFacts, claim: Claim) -> None:
    if claim.on_busy == "reject":
        raise BusyError(session.running_turn_id)
    if session.waiting >= claim.max_waiting:
        raise QueueFullError(session.waiting)
