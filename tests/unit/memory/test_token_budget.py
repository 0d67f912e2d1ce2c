from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from hector.domain.memory import Summary, Tail
from hector.domain.messages import (
    Data,
    File,
    Message,
    ModelMessage,
    StoredMessage,
    Text,
    Thinking,
    ToolMessage,
    UserMessage,
)
from hector.domain.tokens import MESSAGE_TOKENS
from hector.memory.context import units
from hector.memory.token_budget import CUT, TokenBudget
from hector.memory.tokens import BpeCounter
from tests.unit.memory.sessions import (
    Letters,
    asking,
    assert_no_call_without_its_result,
    result,
    said,
    sessions,
    size,
    tail,
    user,
)


def select(budget: int, session: Tail) -> Sequence[Message]:
    sent = TokenBudget(budget, Letters()).select(session).sent
    assert [each.tokens for each in sent] == [size(each.message) for each in sent]
    return [each.message for each in sent]


def whole(session: Tail) -> list[Message]:
    return [message for unit in units(session.messages) for message in unit.messages]


def test_no_more_is_read_than_the_budget_holds() -> None:
    limit = TokenBudget(2000, Letters()).limit
    assert limit.tokens == 2000
    assert limit.messages > 0


def test_everything_is_sent_when_it_fits_exactly() -> None:
    session = tail(("a", [user("question"), asking("x"), result("x"), said("answer")]))
    assert select(sum(map(size, whole(session))), session) == whole(session)


def test_an_older_message_that_does_not_fit_is_cut_with_a_marker() -> None:
    session = tail(
        ("a", [user("question"), said("a long answer of many words")]), ("b", [user("yes"), said("fine")])
    )
    left = MESSAGE_TOKENS + len("a long" + CUT)
    newer = size(user("yes")) + size(said("fine"))
    assert select(newer + left, session) == [said("a long" + CUT), user("yes"), said("fine")]


def test_what_lies_before_a_cut_message_is_not_sent_even_if_it_would_fit() -> None:
    session = tail(("a", [user("hi"), said("a very long answer indeed")]), ("b", [user("ok"), said("ok")]))
    newer = size(user("ok")) + size(said("ok"))
    assert select(newer + size(user("hi")), session) == [user("ok"), said("ok")]


def test_a_cut_question_keeps_the_marker_that_it_was_not_answered() -> None:
    session = tail(("a", [user("a rather long question")]), unanswered="crashed")
    left = MESSAGE_TOKENS + len("a rather" + CUT + "\n[not answered: crashed]")
    (message,) = select(left, session)
    assert isinstance(message, UserMessage)
    assert message.text == "a rather" + CUT + "\n[not answered: crashed]"


def test_the_marker_counts_too() -> None:
    session = tail(("a", [user("question")]), unanswered="crashed")
    fits = size(user("question")) + len("\n[not answered: crashed]")
    (message,) = select(fits, session)
    assert isinstance(message, UserMessage)
    assert message.text == "question\n[not answered: crashed]"
    assert select(fits - 1, session) != [message]


def test_of_a_cut_message_only_text_is_kept() -> None:
    parts = (Text("look at this picture "), File("image/png", data=b"\x89"), Data([1]))
    thought = ModelMessage((Thinking("hm " * 50), Text("an answer of some words")))
    for message, start in ((UserMessage(parts), UserMessage), (thought, ModelMessage)):
        session = Tail((StoredMessage(message, 1, "a", tokens=900),))
        (cut,) = select(MESSAGE_TOKENS + 6 + len(CUT), session)
        assert cut == start((Text(message.text[:6] + CUT),))


def test_long_results_are_cut_and_short_ones_leave_them_their_room() -> None:
    exchange: list[Message] = [
        asking("x", "y", "z"),
        result("x", "X" * 100),
        result("y", "y"),
        result("z", "Z" * 80),
    ]
    session = tail(("a", exchange))
    room = size(exchange[0]) + size(exchange[2]) + 2 * (MESSAGE_TOKENS + 20 + len(CUT))
    assert select(room, session) == [
        exchange[0],
        result("x", "X" * 20 + CUT),
        exchange[2],
        result("z", "Z" * 20 + CUT),
    ]


def test_a_call_whose_result_finds_no_room_is_not_sent() -> None:
    session = tail(("a", [asking("x"), result("x", "X" * 100), said("ok")]))
    room = size(asking("x")) + size(said("ok")) + MESSAGE_TOKENS + len(CUT)
    assert select(room, session) == [said("ok")]


def test_the_summary_comes_first_and_takes_its_part_of_the_budget() -> None:
    session = replace(tail(("a", [user("hi"), said("ok")])), summary=Summary(9, "They met."))
    summary = user("[summary of the conversation so far]\nThey met.")
    assert select(size(summary) + size(said("ok")), session) == [summary, said("ok")]


def test_a_summary_that_says_nothing_is_not_sent() -> None:
    session = replace(tail(("a", [user("hi"), said("ok")])), summary=Summary(9, ""))
    assert select(100, session) == [user("hi"), said("ok")]


def test_a_summary_that_does_not_fit_is_cut() -> None:
    session = replace(tail(("a", [user("hi"), said("ok")])), summary=Summary(9, "long " * 100))
    (summary, *rest) = select(100, session)
    assert rest == []
    assert size(summary) == 100


@given(session=sessions(), budget=st.integers(0, 300), summary=st.none() | st.text("ab ", max_size=80))
@settings(max_examples=300)
def test_the_budget_is_kept_with_the_newest_in_their_order(
    session: Tail, budget: int, summary: str | None
) -> None:
    session = replace(session, summary=None if summary is None else Summary(0, summary))
    sent = list(select(budget, session))
    assert sum(map(size, sent)) <= budget
    assert_no_call_without_its_result(sent)
    if (
        summary is not None
        and sent
        and isinstance(sent[0], UserMessage)
        and sent[0].text.startswith("[summary")
    ):
        sent.pop(0)
    # The newest messages without a gap, each as it was or cut.
    for given_, sent_ in zip(reversed(whole(session)), reversed(sent), strict=False):
        assert sent_ == given_ or is_cut_of(sent_, given_)
    assert len(sent) <= len(whole(session))


def is_cut_of(short: Message, message: Message) -> bool:
    start, cut, rest = text_of(short).partition(CUT)
    unanswered = rest == "" or rest.startswith("\n[not answered: ")
    return type(short) is type(message) and cut != "" and unanswered and text_of(message).startswith(start)


def text_of(message: Message) -> str:
    return message.result.text if isinstance(message, ToolMessage) else message.text


@given(session=sessions())
def test_all_of_a_small_history_is_sent(session: Tail) -> None:
    assert select(100_000, session) == whole(session)


@given(text=st.text("ab c\n日🚀é", min_size=1, max_size=200), budget=st.integers(0, 80))
@settings(deadline=None)
def test_the_budget_is_kept_by_a_real_tokenizer(text: str, budget: int) -> None:
    counter = BpeCounter("o200k_base")
    stored = StoredMessage(user(text), 1, "a", counter.count(text) + MESSAGE_TOKENS)
    sent = [each.message for each in TokenBudget(budget, counter).select(Tail((stored,))).sent]
    assert (
        sum(MESSAGE_TOKENS + counter.count(each.text) for each in sent if isinstance(each, UserMessage))
        <= budget
    )


def test_the_budget_is_kept_where_two_texts_take_more_together_than_apart() -> None:
    class Seams(Letters):
        def count(self, text: str) -> int:
            return len(text) + 3 * text.count("x [") + 3 * text.count("]\nx")

    session = Tail((StoredMessage(user("x" * 500), 1, "a", 504),), Summary(0, "x" * 500))
    for budget in range(40, 150):
        counter = Seams()
        sent = TokenBudget(budget, counter).select(session).sent
        assert sum(MESSAGE_TOKENS + counter.count(text_of(each.message)) for each in sent) <= budget


def test_whole_messages_are_never_counted_again() -> None:
    class Watchful(Letters):
        def count(self, text: str) -> int:
            assert len(text) < 1000, "a stored message was counted"
            return len(text)

    stored = [StoredMessage(user("x" * 5000), seq, f"t{seq}", 100) for seq in range(1, 10)]
    selection = TokenBudget(450, Watchful()).select(Tail(tuple(stored)))
    assert (len(selection.sent), selection.overflowed) == (4 + 1, True)
