import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hector.domain.memory import Compaction, Summary, Tail
from hector.domain.messages import (
    Data,
    File,
    Message,
    ModelMessage,
    StoredMessage,
    Text,
    Thinking,
    UserMessage,
)
from hector.memory.compaction import Chunk, chunks, is_due, last_to_cover
from hector.memory.context import cost, units
from tests.unit.memory.sessions import Letters, asking, result, said, sessions, size, tail, user

COMPACTION = Compaction(100, threshold=0.8, target=0.6)


def tokens_of(messages: Sequence[StoredMessage]) -> int:
    return sum(cost(unit, Letters()) for unit in units(messages))


def told(messages: Sequence[StoredMessage], through_seq: int, tokens: int = 10_000) -> list[Chunk]:
    return list(chunks(messages, through_seq, Letters(), tokens=tokens))


def test_the_shares_of_a_budget() -> None:
    assert (COMPACTION.due_above, COMPACTION.summary_limit, COMPACTION.kept) == (80, 30, 30)
    tiny = Compaction(1, threshold=0.8, target=0.1)
    assert (tiny.summary_limit, tiny.kept) == (1, 0)


@pytest.mark.parametrize(("tokens", "due"), [(80, False), (81, True)])
def test_a_summary_is_due_above_the_threshold(tokens: int, due: bool) -> None:
    message = StoredMessage(user("x"), 1, "a", tokens - 10)
    assert is_due(Tail((message,), Summary(0, "notes", 10)), COMPACTION, Letters(), messages=100) == due


def test_a_summary_is_due_where_the_session_is_read_no_further() -> None:
    session = tail(*((str(n), [user("")]) for n in range(5)))
    assert not is_due(session, COMPACTION, Letters(), messages=6)
    assert is_due(session, COMPACTION, Letters(), messages=5)


def test_what_was_superseded_makes_no_summary_due() -> None:
    session = tail(("a", [user("x" * 500)]), unanswered="superseded")
    assert not is_due(session, COMPACTION, Letters(), messages=100)


def test_whole_turns_are_covered_until_the_rest_fits() -> None:
    session = tail(
        ("a", [user("1"), said("2")]), ("b", [user("3"), said("4")]), ("c", [user("5"), said("6")])
    )
    two_turns = 4 * size(user("1"))
    assert last_to_cover(session.messages, Letters(), tokens=two_turns, kept=100) == 2
    assert last_to_cover(session.messages, Letters(), tokens=two_turns - 1, kept=100) == 4
    assert last_to_cover(session.messages, Letters(), tokens=two_turns, kept=3) == 4


def test_a_turn_too_long_to_be_kept_is_covered_in_part_but_never_its_newest_message() -> None:
    messages: list[Message] = [user("1"), said("2"), user("3"), said("4" * 10)]
    session = tail(("a", messages))
    assert (
        last_to_cover(session.messages, Letters(), tokens=size(messages[3]) + size(messages[2]), kept=9) == 2
    )
    assert last_to_cover(session.messages, Letters(), tokens=0, kept=0) == 3


def test_a_call_is_covered_with_its_results() -> None:
    session = tail(("a", [user("q"), asking("x", "y"), result("x"), result("y"), said("ok")]))
    whole = tokens_of(session.messages)
    answers = [last_to_cover(session.messages, Letters(), tokens=left, kept=9) for left in range(whole)]
    assert set(answers) == {1, 4}


def test_a_call_is_covered_with_the_result_that_came_last() -> None:
    session = tail(("a", [user("q"), asking("x", "y"), result("y"), result("x"), said("ok")]))
    assert (
        last_to_cover(session.messages, Letters(), tokens=size(said("ok")) + size(result("x")), kept=9) == 4
    )


def with_another_between() -> Tail:
    """A call, another turn's question, and the result of the call."""
    call, answer = tail(("a", [asking("x"), result("x")])).messages
    (question,) = tail(("b", [user("q")])).messages
    (last,) = tail(("c", [said("ok")])).messages
    session = (call, question, answer, last)
    return Tail(tuple(each._replace(seq=seq) for seq, each in enumerate(session, start=1)))


def test_a_call_is_not_parted_from_its_result_where_another_turn_lies_between() -> None:
    session = with_another_between()
    whole = tokens_of(session.messages)
    answers = [last_to_cover(session.messages, Letters(), tokens=left, kept=9) for left in range(whole)]
    assert set(answers) == {3}
    found = told(session.messages, 4, tokens=8)
    assert [chunk.through_seq for chunk in found if chunk.through_seq] == [3, 4]


def test_the_markers_of_what_was_not_answered_are_counted() -> None:
    session = tail(*((str(n), [user("q")]) for n in range(3)), unanswered="crashed")
    marked = size(user("q")) + len("\n[not answered: crashed]")
    assert last_to_cover(session.messages, Letters(), tokens=2 * marked, kept=9) == 1
    assert last_to_cover(session.messages, Letters(), tokens=2 * marked - 1, kept=9) == 2
    compaction = Compaction(3 * marked, threshold=1, target=0.5)
    assert not is_due(session, compaction, Letters(), messages=9)
    assert is_due(session, replace(compaction, budget=3 * marked - 1), Letters(), messages=9)


def test_nothing_is_to_be_covered_of_one_message() -> None:
    assert last_to_cover(tail(("a", [user("q")])).messages, Letters(), tokens=0, kept=0) is None
    assert last_to_cover((), Letters(), tokens=0, kept=0) is None


@given(session=sessions(), tokens=st.integers(0, 200), kept=st.integers(0, 20))
def test_no_unit_is_parted_and_the_newest_stays(session: Tail, tokens: int, kept: int) -> None:
    seq = last_to_cover(session.messages, Letters(), tokens=tokens, kept=kept)
    found = units(session.messages)
    if seq is None:
        return
    before = [stored for stored in session.messages if (stored.seq or 0) <= seq]
    after = [stored for stored in session.messages if (stored.seq or 0) > seq]
    assert {each.seqs for each in (*units(before), *units(after))} == {each.seqs for each in found}
    newest = max(found, key=lambda unit: unit.seqs[-1]).seqs if found else (session.messages[-1].seq,)
    assert newest[-1] in [stored.seq for stored in after]


@given(session=sessions(), tokens=st.integers(0, 200), kept=st.integers(0, 20))
def test_what_is_left_fits_if_that_can_be(session: Tail, tokens: int, kept: int) -> None:
    seq = last_to_cover(session.messages, Letters(), tokens=tokens, kept=kept)
    if seq is None:
        return
    left = [stored for stored in session.messages if (stored.seq or 0) > seq]
    if tokens_of(left) <= tokens and len(left) <= kept:
        return
    assert last_to_cover(left, Letters(), tokens=0, kept=0) is None or any(
        # What follows belongs to units that lie within one another.
        stored.turn_id in {other.turn_id for other in left[number + 1 :]}
        for number, stored in enumerate(left)
    )


def test_the_model_reads_who_said_what() -> None:
    parts = (Text("look"), File("image/png", name="x.png", data=b"1"), Data({"a": "é"}))
    thinking = ModelMessage((Thinking("hm"), Text("I see")))
    session = tail(("a", [user("q"), asking("x"), result("x", "r" * 5000), said("ok")]))
    seen = (StoredMessage(UserMessage(parts), 5, "b", 10), StoredMessage(thinking, 6, "b", 10))
    (chunk,) = told((*session.messages, *seen), 6)
    assert chunk == Chunk(
        "User: q\n\n"
        f"Assistant calls f: {{}}\nf answers: {'r' * 4000} [...]\n\n"
        "Assistant: ok\n\n"
        'User: look\n[file x.png]\n{"a": "é"}\n\n'
        "Assistant: I see",
        6,
    )


def test_only_what_is_covered_is_told() -> None:
    session = tail(("a", [user("1"), said("2")]), ("b", [user("3"), said("4")]))
    assert told(session.messages, 2) == [Chunk("User: 1\n\nAssistant: 2", 2)]


def test_a_question_without_an_answer_says_so() -> None:
    session = tail(("a", [user("1"), said("half an answer")]), unanswered="crashed")
    assert told(session.messages, 2) == [Chunk("User: 1\n\n[not answered: crashed]", 2)]


def test_what_is_long_is_told_in_parts_and_each_says_what_is_covered_then() -> None:
    session = tail(("a", [user("1" * 30), said("2" * 150)]), ("b", [user("3" * 30), said("4")]))
    assert told(session.messages, 3, tokens=80) == [
        Chunk(f"User: {'1' * 30}", 1),
        Chunk(f"Assistant: {'2' * 69}", None),
        Chunk("2" * 80, None),
        Chunk(f"2\n\nUser: {'3' * 30}", 3),
    ]


def test_of_a_very_long_message_the_middle_is_left_out() -> None:
    session = tail(("a", [user("a" * 10_000 + "b" * 20_000_000 + "c" * 10_000), said("ok")]))
    text = "".join(chunk.text for chunk in told(session.messages, 1, tokens=1000))
    assert text == f"User: {'a' * 4000} [...] {'c' * 4000}"


@given(session=sessions(), tokens=st.integers(20, 60))
def test_parts_are_small_cover_no_more_than_they_told_and_lose_no_word(session: Tail, tokens: int) -> None:
    messages = session.messages
    if not messages:
        return
    found = told(messages, messages[-1].seq or 0, tokens)
    assert all(len(chunk.text) <= tokens + 2 * len(units(messages)) for chunk in found)
    ends = [chunk.through_seq for chunk in found if chunk.through_seq is not None]
    assert ends == sorted(set(ends))
    assert ends[-1] == found[-1].through_seq == messages[-1].seq
    for end in ends:
        upto = [stored for stored in messages if (stored.seq or 0) <= end]
        place = next(number for number, chunk in enumerate(found, 1) if chunk.through_seq == end)
        assert words(*found[:place]) == words(*told(upto, end))


def words(*found: Chunk) -> str:
    """But for markers, which stand at what is last of a turn, and lines' ends."""
    text = "".join(chunk.text for chunk in found).replace("\n", "")
    return re.sub(r"\[not answered: [a-z ]+\]", "", text)


def test_where_nothing_is_sent_there_is_nothing_to_tell() -> None:
    session = tail(("a", [user("q"), said("ok")]), unanswered="superseded")
    assert told(session.messages, 2) == [Chunk("", 2)]
    assert told(replace(session, messages=()).messages, 2) == [Chunk("", 2)]
