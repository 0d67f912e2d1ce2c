"""What is wrong with the order of a run's messages, as a table."""

from collections.abc import Sequence

import pytest

from tests.chaos.database import AGENT, NEITHER, USER, MessageRow, TurnRow
from tests.chaos.history import ToolCall, ToolResult
from tests.chaos.runs import Run, fault_of

ONE, TWO = ToolCall("1", "look", "{}"), ToolCall("2", "look", "{}")


def row(role: int, text: str = "", *calls: ToolCall, result: str | None = None) -> MessageRow:
    told = ToolResult(result, "") if result else None
    return MessageRow("t", 1, None, 0, role, text, None, None, None, calls, (), told)


USER_ROW, REPLY, QUESTION = row(USER, "a"), row(AGENT, "b"), row(AGENT, "a#1.1 ran as a1, what now?")
BOTH = row(AGENT, "", ONE, TWO)
FIRST, SECOND = row(NEITHER, result="1"), row(NEITHER, result="2")


@pytest.mark.parametrize(
    ("state", "rows", "fault"),
    [
        ("working", [USER_ROW], None),
        ("working", [USER_ROW, BOTH], None),
        ("working", [USER_ROW, BOTH, SECOND], None),
        ("failed", [USER_ROW, BOTH, SECOND, FIRST], None),
        ("completed", [USER_ROW, REPLY], None),
        ("completed", [USER_ROW, BOTH, SECOND, FIRST, REPLY], None),
        ("input_required", [USER_ROW, BOTH, SECOND, FIRST, QUESTION], None),
        ("input_required", [USER_ROW, REPLY], "waits for an answer to nothing"),
        ("completed", [REPLY], "begins without a user's message"),
        ("completed", [USER_ROW], "is completed, answered: False"),
        ("failed", [USER_ROW, REPLY], "is failed, answered: True"),
        ("completed", [USER_ROW, REPLY, REPLY], "goes on after its answer"),
        ("completed", [USER_ROW, FIRST, REPLY], "has a result that nobody waits for"),
        ("completed", [USER_ROW, BOTH, FIRST, FIRST, REPLY], "has a result that nobody waits for"),
        ("completed", [USER_ROW, BOTH, FIRST, REPLY], "goes on without the results of its calls"),
        ("working", [USER_ROW, BOTH, FIRST, BOTH], "goes on without the results of its calls"),
    ],
)
def test_what_is_wrong_with_a_run(state: str, rows: Sequence[MessageRow], fault: str | None) -> None:
    turn = TurnRow("t", state, None, False, 1, None, None, 1)
    found = fault_of(Run("t", turn, rows, is_last=True))
    assert found == fault
