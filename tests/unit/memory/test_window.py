from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hector.domain.memory import Summary, Tail, TailLimit, WorkingMemory
from hector.domain.messages import Message
from hector.memory.context import units
from hector.memory.window import BufferWindow
from tests.unit.memory.sessions import (
    asking,
    assert_no_call_without_its_result,
    result,
    said,
    sessions,
    tail,
    user,
)

SESSION = tail(("a", [user("1"), asking("x"), result("x"), said("2")]), ("b", [user("3"), said("4")]))


def messages_of(memory: WorkingMemory, session: Tail) -> list[Message]:
    return [sent.message for sent in memory.select(session).sent]


def test_as_many_messages_are_read_as_may_be_sent() -> None:
    assert BufferWindow(20).limit == TailLimit(messages=20)


@pytest.mark.parametrize(
    ("window", "sent"),
    [
        (0, []),
        (1, [said("4")]),
        (3, [said("2"), user("3"), said("4")]),
        (4, [said("2"), user("3"), said("4")]),
        (5, [asking("x"), result("x"), said("2"), user("3"), said("4")]),
        (6, [user("1"), asking("x"), result("x"), said("2"), user("3"), said("4")]),
    ],
)
def test_the_last_messages_are_sent_and_a_call_only_with_its_result(window: int, sent: list[Message]) -> None:
    assert messages_of(BufferWindow(window), SESSION) == sent


def test_a_summary_comes_first_and_does_not_count() -> None:
    session = replace(SESSION, summary=Summary(9, "They met."))
    assert messages_of(BufferWindow(1), session) == [
        user("[summary of the conversation so far]\nThey met."),
        said("4"),
    ]


@given(session=sessions(), window=st.integers(0, 20))
def test_a_window_is_the_end_of_the_session(session: Tail, window: int) -> None:
    whole = [message for unit in units(session.messages) for message in unit.messages]
    sent = messages_of(BufferWindow(window), session)
    assert len(sent) <= window
    assert sent == whole[len(whole) - len(sent) :]
    assert_no_call_without_its_result(sent)
    if len(whole) <= window:
        assert len(sent) == len(whole)
