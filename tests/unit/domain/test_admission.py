"""The table of what becomes of a message that reaches a session."""

from dataclasses import replace

import pytest

from hector.domain.admission import (
    Claim,
    Continue,
    Decision,
    EarlierFacts,
    Join,
    Resume,
    Return,
    SessionFacts,
    Start,
    admit,
)
from hector.domain.errors import (
    BusyError,
    CallerError,
    ConflictError,
    NotFoundError,
    NotPausedError,
    QueueFullError,
)
from hector.domain.turns import Reason, TurnState

FREE = SessionFacts(None, 0)
RUNS = SessionFacts("running", 0)
BETWEEN = SessionFacts(None, 1)
FULL = SessionFacts("running", 5)

NEW = Claim("m", "new", None, "wait", 5)
REJECT = replace(NEW, on_busy="reject")
RESUMES = replace(NEW, resumes="paused")

EARLIER = EarlierFacts(
    "old", "old", 0, same_content=True, waits=False, run_state=None, state=TurnState.COMPLETED, reason=None
)


def earlier(state: TurnState, reason: str | None = None) -> EarlierFacts:
    return replace(EARLIER, state=state, reason=reason)


WAITING = replace(EARLIER, state=TurnState.SUBMITTED, waits=True)
WAITS_FOR_PAUSED = replace(
    EARLIER, turn_id="paused", arrival_id="x", state=TurnState.INPUT_REQUIRED, waits=True
)
FAILED = earlier(TurnState.FAILED, Reason.CRASHED)
RAN_BEFORE_A_PAUSE = replace(EARLIER, run_state=TurnState.INPUT_REQUIRED, state=TurnState.WORKING)
WITHDRAWN = replace(EARLIER, turn_id="paused", run_state=TurnState.CANCELED, state=TurnState.INPUT_REQUIRED)
REFUSED = replace(EARLIER, turn_id="paused", run_state=TurnState.REJECTED, state=TurnState.COMPLETED)
LAST_OF_A_FAILED_TURN = replace(FAILED, turn_id="paused", retry=2, went_to_named=True)
TRIED_AGAIN_AND_FAILED = replace(FAILED, retry=3, went_to_named=True)

START_AGAIN = Start(1, "old")


@pytest.mark.parametrize(
    ("session", "before", "named", "claim", "decision"),
    [
        # new messages
        (FREE, None, None, NEW, Start()),
        (FREE, None, None, REJECT, Start()),
        (RUNS, None, None, NEW, Start(waits=True)),
        (BETWEEN, None, None, NEW, Start(waits=True)),
        (SessionFacts("running", 4), None, None, NEW, Start(waits=True)),
        # repeats
        (RUNS, earlier(TurnState.WORKING), None, NEW, Join("old")),
        (RUNS, earlier(TurnState.SUBMITTED), None, NEW, Join("old")),
        (FULL, WAITING, None, NEW, Join("old")),
        (FULL, WAITING, None, REJECT, Join("old")),
        (FREE, earlier(TurnState.COMPLETED), None, NEW, Return("old")),
        (FULL, earlier(TurnState.COMPLETED), None, REJECT, Return("old")),
        (FREE, earlier(TurnState.INPUT_REQUIRED), None, NEW, Return("old")),
        (FREE, earlier(TurnState.AUTH_REQUIRED), None, NEW, Return("old")),
        (FREE, earlier(TurnState.CANCELED, Reason.CANCELED), None, NEW, Return("old")),
        (FREE, earlier(TurnState.CANCELED), None, NEW, Return("old")),
        (FREE, earlier(TurnState.CANCELED, Reason.MAX_WAIT), None, NEW, START_AGAIN),
        (FREE, earlier(TurnState.FAILED, Reason.TOOL_UNKNOWN), None, NEW, Return("old")),
        (FREE, FAILED, None, NEW, START_AGAIN),
        (FREE, earlier(TurnState.FAILED), None, NEW, START_AGAIN),
        (FREE, earlier(TurnState.FAILED, Reason.SHUTDOWN), None, NEW, START_AGAIN),
        (FREE, earlier(TurnState.REJECTED), None, NEW, START_AGAIN),
        (FREE, replace(FAILED, retry=6), None, NEW, Start(7, "old")),
        (RUNS, FAILED, None, NEW, replace(START_AGAIN, waits=True)),
        # one's own arrival
        (
            RUNS,
            replace(EARLIER, turn_id="new", arrival_id="new", state=TurnState.WORKING),
            None,
            NEW,
            Continue(),
        ),
        (RUNS, replace(WAITS_FOR_PAUSED, arrival_id="new"), TurnState.INPUT_REQUIRED, RESUMES, Continue()),
        # paused turns
        (FREE, None, TurnState.INPUT_REQUIRED, RESUMES, Resume("paused")),
        (FREE, None, TurnState.AUTH_REQUIRED, RESUMES, Resume("paused")),
        (RUNS, None, TurnState.INPUT_REQUIRED, RESUMES, Resume("paused", waits=True)),
        (BETWEEN, None, TurnState.INPUT_REQUIRED, RESUMES, Resume("paused", waits=True)),
        (FULL, WAITS_FOR_PAUSED, TurnState.INPUT_REQUIRED, RESUMES, Join("paused")),
        (FREE, RAN_BEFORE_A_PAUSE, None, NEW, Return("old")),
        (RUNS, RAN_BEFORE_A_PAUSE, TurnState.WORKING, RESUMES, Return("old")),
        (FREE, WITHDRAWN, TurnState.INPUT_REQUIRED, RESUMES, Resume("paused", 1)),
        (FREE, LAST_OF_A_FAILED_TURN, TurnState.FAILED, RESUMES, Start(3, "paused")),
        (RUNS, LAST_OF_A_FAILED_TURN, TurnState.FAILED, RESUMES, Start(3, "paused", waits=True)),
        (FREE, TRIED_AGAIN_AND_FAILED, TurnState.FAILED, RESUMES, Start(4, "old")),
        (FREE, FAILED, TurnState.INPUT_REQUIRED, RESUMES, Resume("paused", 1)),
    ],
)
def test_a_message_is_admitted(
    session: SessionFacts,
    before: EarlierFacts | None,
    named: TurnState | None,
    claim: Claim,
    decision: Decision,
) -> None:
    assert admit(session, before, named, claim) == decision


@pytest.mark.parametrize(
    ("session", "before", "named", "claim", "error"),
    [
        (RUNS, None, None, REJECT, BusyError),
        (BETWEEN, None, None, REJECT, BusyError),
        (RUNS, FAILED, None, REJECT, BusyError),
        (FULL, None, None, NEW, QueueFullError),
        (FULL, FAILED, None, NEW, QueueFullError),
        (FULL, None, TurnState.INPUT_REQUIRED, RESUMES, QueueFullError),
        (FREE, None, None, RESUMES, NotFoundError),
        (FREE, FAILED, None, RESUMES, NotFoundError),
        *(
            (FREE, None, state, RESUMES, NotPausedError)
            for state in TurnState
            if state not in (TurnState.INPUT_REQUIRED, TurnState.AUTH_REQUIRED)
        ),
        (FREE, REFUSED, TurnState.COMPLETED, RESUMES, NotPausedError),
        (FREE, FAILED, TurnState.COMPLETED, RESUMES, NotPausedError),
        *(
            (FREE, replace(earlier(state), same_content=False), None, NEW, ConflictError)
            for state in TurnState
        ),
        (FULL, replace(WAITING, same_content=False), None, REJECT, ConflictError),
        (FREE, replace(FAILED, same_content=False), TurnState.FAILED, RESUMES, ConflictError),
    ],
)
def test_a_message_is_refused(
    session: SessionFacts,
    before: EarlierFacts | None,
    named: TurnState | None,
    claim: Claim,
    error: type[CallerError],
) -> None:
    with pytest.raises(error):
        admit(session, before, named, claim)


@pytest.mark.parametrize("state", TurnState)
def test_a_repeat_is_never_refused_for_the_state_of_its_turn(state: TurnState) -> None:
    admit(FREE, earlier(state), None, NEW)
