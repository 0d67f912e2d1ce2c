from collections.abc import Sequence

import pytest
from hypothesis import given

from hector.domain.memory import Tail
from hector.domain.messages import File, Message, ModelMessage, StoredMessage, Text, UserMessage
from hector.memory.context import units
from tests.unit.memory.sessions import (
    asking,
    assert_no_call_without_its_result,
    result,
    said,
    sessions,
    tail,
    user,
)


def rendered(given: Tail) -> list[Message]:
    return [message for unit in units(given.messages) for message in unit.messages]


@pytest.mark.parametrize(
    ("turns", "read"),
    [
        pytest.param([], [], id="nothing is nothing"),
        pytest.param(
            [("a", [user("1"), said("2")]), ("b", [user("3"), said("4")])],
            [user("1"), said("2"), user("3"), said("4")],
            id="turns in their order",
        ),
        pytest.param(
            [("a", [user("1"), asking("x", "y"), result("y", "Y"), result("x", "X"), said("2")])],
            [user("1"), asking("x", "y"), result("x", "X"), result("y", "Y"), said("2")],
            id="results in the order of their calls",
        ),
        pytest.param(
            [("a", [user("1"), said("?")]), ("b", [user("2"), said("3")]), ("a", [user("4"), said("5")])],
            [user("2"), said("3"), user("1"), said("?"), user("4"), said("5")],
            id="a turn stands together where it ended",
        ),
        pytest.param([("a", [result("x"), said("2")])], [said("2")], id="no result without its call"),
        pytest.param(
            [("a", [user("1"), asking("x", "y"), result("x"), said("2")])],
            [user("1"), said("2")],
            id="no calls without all their results",
        ),
        pytest.param(
            [("a", [user("1"), ModelMessage(()), said("2")])],
            [user("1"), said("2")],
            id="no message without a word",
        ),
    ],
)
def test_what_a_session_reads_like(
    turns: Sequence[tuple[str, Sequence[Message]]], read: Sequence[Message]
) -> None:
    assert rendered(tail(*turns)) == read


TURN: tuple[str, list[Message]] = ("a", [user("1"), asking("x"), result("x"), said("half")])


def test_a_superseded_turn_is_nothing() -> None:
    assert rendered(tail(TURN, unanswered="superseded")) == []


def test_of_a_turn_whose_last_run_was_superseded_the_others_are_left() -> None:
    session = tail(("a", [user("1"), said("?"), user("2")]), ("b", [user("2"), said("3")]))
    superseded = session.messages[2]._replace(unanswered="superseded")
    messages = (*session.messages[:2], superseded, *session.messages[3:])
    assert rendered(Tail(messages)) == [user("1"), said("?"), user("2"), said("3")]


def test_an_unanswered_turn_is_its_question_with_a_marker() -> None:
    (message,) = rendered(tail(TURN, unanswered="crashed"))
    assert message == UserMessage((Text("1"), Text("\n[not answered: crashed]")))
    assert isinstance(message, UserMessage)
    assert message.text == "1\n[not answered: crashed]"


def test_an_unanswered_turn_of_several_questions_has_one_marker() -> None:
    paused: tuple[str, list[Message]] = ("a", [user("1"), said("?"), user("2")])
    assert rendered(tail(paused, unanswered="crashed")) == [
        user("1"),
        UserMessage((Text("2"), Text("\n[not answered: crashed]"))),
    ]


def test_files_stay_with_their_question() -> None:
    file = File("image/png", data=b"\x89")
    message = UserMessage((file,), {"kept": True})
    stored = StoredMessage(message, 1, "a", unanswered="crashed")
    (read,) = rendered(Tail((stored,)))
    assert read == UserMessage((file, Text("\n[not answered: crashed]")))


@given(sessions())
def test_a_call_is_never_parted_from_its_results(session: Tail) -> None:
    assert_no_call_without_its_result(rendered(session))


@given(sessions())
def test_all_that_users_said_is_kept_but_what_was_superseded(session: Tail) -> None:
    stored = [
        each.message.text
        for each in session.messages
        if isinstance(each.message, UserMessage) and each.unanswered != "superseded"
    ]
    read = [each.text.partition("\n[not")[0] for each in rendered(session) if isinstance(each, UserMessage)]
    assert sorted(read) == sorted(stored)
