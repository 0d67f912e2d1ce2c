"""What becomes of a turn that was broken off, as a table."""

import pytest

from hector.domain.messages import Message, ModelMessage, Text, ToolCall, ToolMessage, ToolResult, UserMessage
from hector.domain.recovery import BrokenOff, give_up, unrecorded
from hector.domain.turns import Reason, Recovery

RESUME, FAIL = Recovery("resume", 3), Recovery("fail", 3)

ASKED = UserMessage((Text("pay"),))
LOOKS = ToolCall("1", "look", "{}", idempotent=True)
PAYS = ToolCall("2", "pay", '{"sum": 7}')


def calls(*made: ToolCall) -> ModelMessage:
    return ModelMessage(made)


def done(call: ToolCall) -> ToolMessage:
    return ToolMessage(ToolResult(call.id, call.name, "ok"))


RUN_ON = None
CRASHED = (Reason.CRASHED, True)
UNKNOWN = (Reason.TOOL_UNKNOWN, False)


@pytest.mark.parametrize(
    ("own", "attempts", "handed_over", "recovery", "expected"),
    [
        ((ASKED,), 1, False, RESUME, RUN_ON),
        ((ASKED,), 2, False, RESUME, RUN_ON),
        ((ASKED,), 3, False, RESUME, CRASHED),
        ((ASKED,), 3, True, RESUME, RUN_ON),
        ((ASKED,), 1, False, FAIL, CRASHED),
        ((ASKED,), 1, True, FAIL, CRASHED),
        ((ASKED, calls(LOOKS)), 1, False, RESUME, RUN_ON),
        ((ASKED, calls(LOOKS)), 1, False, FAIL, CRASHED),
        ((ASKED, calls(LOOKS)), 3, False, RESUME, CRASHED),
        ((ASKED, calls(PAYS)), 1, False, RESUME, UNKNOWN),
        ((ASKED, calls(PAYS)), 1, True, RESUME, UNKNOWN),
        ((ASKED, calls(PAYS), done(PAYS)), 1, False, RESUME, RUN_ON),
        ((ASKED, calls(PAYS), done(PAYS)), 3, False, RESUME, UNKNOWN),
        ((ASKED, calls(PAYS), done(PAYS)), 1, False, FAIL, UNKNOWN),
        ((ASKED, calls(PAYS, LOOKS), done(PAYS)), 1, False, RESUME, RUN_ON),
        ((ASKED, calls(PAYS, LOOKS), done(LOOKS)), 1, False, RESUME, UNKNOWN),
    ],
)
def test_a_turn_is_run_on_or_ends(
    own: tuple[Message, ...],
    attempts: int,
    handed_over: bool,
    recovery: Recovery,
    expected: tuple[str, bool] | None,
) -> None:
    outcome = give_up(BrokenOff(own, attempts, handed_over), recovery)
    assert (outcome and (outcome.reason, outcome.retryable)) == expected


def test_the_call_that_may_have_had_its_effect_is_shown_and_cut_if_it_is_long() -> None:
    long = ToolCall("3", "mail", f'{{"text": "{"x" * 1000}"}}')
    outcome = give_up(BrokenOff((ASKED, calls(PAYS, LOOKS, long)), 1), RESUME)
    assert outcome
    assert outcome.error
    assert 'pay({"sum": 7})' in outcome.error
    assert "look(" not in outcome.error
    assert 'mail({"text": "xxx' in outcome.error
    assert len(outcome.error) < 500


def test_calls_are_unrecorded_until_their_results_are_there() -> None:
    assert unrecorded((ASKED, calls(PAYS, LOOKS), done(PAYS))) == [LOOKS]
    assert unrecorded((ASKED,)) == []
