import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hector.domain.errors import ContextTooLongError, ModelError, ModelRequestError, ModelUnavailableError
from hector.domain.ids import SessionKey
from hector.domain.memory import Compaction, Summary, Tail, TailLimit
from hector.domain.messages import Message, StoredMessage, UserMessage
from hector.domain.models import ModelRequest
from hector.domain.summaries import Snapshot
from hector.domain.tokens import MESSAGE_TOKENS
from hector.llm.scripted import Fail, Line, Say, Script, ScriptedModel, in_order
from hector.memory.compaction import is_due
from hector.memory.context import SUMMARY_HEAD
from hector.memory.summarizer import BACKLOG, ModelSummarizer
from hector.memory.token_budget import TokenBudget
from tests.unit.memory.sessions import Letters, said, sessions, size, tail, user

KEY = SessionKey("a", "u", "s")
COMPACTION = Compaction(1000, threshold=0.8, target=0.6)
"""A summary may have 300 letters, and 300 are kept beside it."""


@dataclass
class Store:
    """One session."""

    messages: Sequence[StoredMessage]
    summaries: list[Summary] = field(default_factory=list)
    refuses: bool = False
    limits: list[TailLimit] = field(default_factory=list)

    async def snapshot(self, key: SessionKey, limit: TailLimit) -> Snapshot | None:
        assert key == KEY
        self.limits.append(limit)
        return Snapshot("life", self.seen)

    async def add_summary(
        self, key: SessionKey, incarnation: str, made_from: Summary | None, summary: Summary
    ) -> bool:
        assert (key, incarnation) == (KEY, "life")
        latest = self.summaries[-1] if self.summaries else None
        assert made_from == latest
        assert summary.through_seq > (latest.through_seq if latest else 0)
        if not self.refuses:
            self.summaries.append(summary)
        return not self.refuses

    async def tail(self, key: SessionKey, before: int | None, limit: TailLimit) -> Tail:
        raise AssertionError("a turn asks for it, no summarizer")

    @property
    def seen(self) -> Tail:
        latest = self.summaries[-1] if self.summaries else None
        after = latest.through_seq if latest else 0
        return Tail(tuple(each for each in self.messages if (each.seq or 0) > after), latest)


def long_talk(turns: int = 6, length: int = 100) -> Store:
    """Each turn takes some 216 letters."""
    talk: list[tuple[str, list[Message]]] = [
        (str(n), [user(f"{n}".ljust(length, "u")), said(f"{n}".ljust(length, "m"))]) for n in range(turns)
    ]
    return Store(tail(*talk).messages)


def summarizer(script: Script, compaction: Compaction = COMPACTION, most: int = 500) -> ModelSummarizer:
    model = ScriptedModel(script)
    return ModelSummarizer(model, Letters(), compaction, TailLimit(most, compaction.budget))


def requests(maker: ModelSummarizer) -> list[ModelRequest]:
    assert isinstance(maker.model, ScriptedModel)
    return list(maker.model.requests)


def question(request: ModelRequest) -> str:
    (message,) = request.messages
    assert isinstance(message, UserMessage)
    return message.text


async def test_nothing_is_asked_of_the_model_below_the_threshold() -> None:
    store, maker = long_talk(turns=3), summarizer(in_order())
    assert await maker.summarize(store, KEY) == 0
    assert requests(maker) == []


async def test_there_is_nothing_to_summarise_of_no_session() -> None:
    class Empty(Store):
        async def snapshot(self, key: SessionKey, limit: TailLimit) -> None:
            return None

    assert await summarizer(in_order()).summarize(Empty(()), KEY) == 0


async def test_older_turns_are_put_to_the_model_and_the_newest_kept() -> None:
    store, maker = long_talk(), summarizer(in_order(Say("They counted.")))
    assert await maker.summarize(store, KEY) == 10
    text = "They counted."
    assert store.summaries == [Summary(10, text, MESSAGE_TOKENS + len(SUMMARY_HEAD + text))]
    (request,) = requests(maker)
    assert "User: 0uuu" in question(request)
    assert "Assistant: 4mmm" in question(request)
    assert "5u" not in question(request), "the newest turn"
    assert request.stream is False
    assert request.yields is True
    assert request.longest == 450
    assert request.output_schema is not None
    assert request.tools == ()
    assert "180 words" in request.instructions


async def test_the_next_summary_is_made_of_the_last_and_what_came_since() -> None:
    store, maker = long_talk(), summarizer(in_order(Say("first notes"), Say("second notes")))
    await maker.summarize(store, KEY)
    store.messages = long_talk(turns=10).messages
    assert await maker.summarize(store, KEY) == 8
    assert [each.text for each in store.summaries] == ["first notes", "second notes"]
    told = question(requests(maker)[1])
    assert "first notes" in told
    assert "4mmm" not in told
    assert "User: 5uuu" in told
    assert "Assistant: 8mmm" in told
    assert "9u" not in told


async def test_an_object_of_the_schema_reads_as_text() -> None:
    answer = {
        "gist": "A trip.",
        "facts": ["Ana lives in Porto.", "", 3],
        "decisions": [],
        "open_questions": ["When?"],
    }
    for text in (json.dumps(answer), f"```json\n{json.dumps(answer)}\n```"):
        store = long_talk()
        await summarizer(in_order(Say(text))).summarize(store, KEY)
        assert store.summaries[0].text == "A trip.\nFacts:\n- Ana lives in Porto.\nOpen questions:\n- When?"


@pytest.mark.parametrize("text", ["[1, 2]", "{}", '{"gist": 3, "facts": "x"}', "{ no JSON"])
async def test_any_other_answer_is_taken_as_it_is(text: str) -> None:
    store = long_talk()
    await summarizer(in_order(Say(text))).summarize(store, KEY)
    assert store.summaries[0].text == text


async def test_a_model_that_takes_no_schema_is_asked_for_text_from_then_on() -> None:
    def plain(request: ModelRequest) -> Sequence[Line]:
        if request.output_schema is not None:
            return [Fail(ModelRequestError("no response_format here"))]
        return [Say("plain notes")]

    maker = summarizer(plain)
    for _ in range(2):
        store = long_talk()
        await maker.summarize(store, KEY)
        assert store.summaries[0].text == "plain notes"
    assert [request.output_schema is None for request in requests(maker)] == [False, True, True]
    assert '- "' in requests(maker)[-1].instructions


async def test_a_model_that_refuses_all_is_not_taken_for_one_that_takes_no_schema() -> None:
    maker = summarizer(in_order(Fail(ModelRequestError("no")), Fail(ModelRequestError("no")), Say("notes")))
    store = long_talk()
    with pytest.raises(ModelRequestError):
        await maker.summarize(store, KEY)
    await maker.summarize(store, KEY)
    assert requests(maker)[-1].output_schema is not None


@pytest.mark.parametrize("answer", [[Say("  \n")], [], [Fail(ModelUnavailableError("down"))]])
async def test_what_fails_is_told_and_leaves_nothing(answer: Sequence[Line]) -> None:
    store = long_talk()
    with pytest.raises(ModelError):
        await summarizer(in_order(answer)).summarize(store, KEY)
    assert store.summaries == []


async def test_a_summary_that_is_too_long_is_to_be_written_shorter_and_then_cut() -> None:
    store, maker = long_talk(), summarizer(in_order(Say("x" * 301), Say("short")))
    await maker.summarize(store, KEY)
    assert store.summaries[0].text == "short"
    assert "90 words" in requests(maker)[1].instructions
    assert "x" * 301 in question(requests(maker)[1])

    store = long_talk()
    await summarizer(in_order(Say("x" * 301), Say("y" * 400))).summarize(store, KEY)
    assert store.summaries[0].text == "y" * 300


async def test_much_is_put_to_the_model_in_several_calls_each_kept() -> None:
    store = long_talk(turns=60)
    made = iter(range(9))
    maker = summarizer(lambda _: [Say(f"notes {next(made)}")])
    await maker.summarize(store, KEY)
    asked = [question(request) for request in requests(maker)]
    assert len(asked) == 4, "60 turns of some 230 letters, 4 budgets at once"
    assert [each.text for each in store.summaries] == [f"notes {number}" for number in range(4)]
    assert ["(none)" in each for each in asked] == [True, False, False, False]
    for number in range(1, 4):
        assert f"notes {number - 1}\n" in asked[number]
    whole = "".join(asked)
    assert all(f"User: {number}u" in whole for number in range(59))


async def test_what_was_done_before_a_failure_stays_and_is_gone_on_from() -> None:
    store = long_talk(turns=60)
    with pytest.raises(ModelUnavailableError):
        await summarizer(in_order(Say("one"), Fail(ModelUnavailableError("down")))).summarize(store, KEY)
    (first,) = store.summaries
    maker = summarizer(in_order(*[Say("more")] * 3))
    await maker.summarize(store, KEY)
    assert "\none\n" in question(requests(maker)[0])
    assert store.summaries[1].through_seq > first.through_seq


async def test_a_summary_that_another_replica_forestalled_ends_the_work() -> None:
    store, maker = replace(long_talk(turns=60), refuses=True), summarizer(in_order(Say("notes")))
    assert await maker.summarize(store, KEY) == 0
    assert len(requests(maker)) == 1


async def test_a_long_backlog_is_read_to_its_bound_alone() -> None:
    store = long_talk()
    await summarizer(in_order(Say("notes")), most=500).summarize(store, KEY)
    assert store.limits == [TailLimit(500 * BACKLOG, 1000 * BACKLOG)]


async def test_a_message_longer_than_a_call_is_put_to_the_model_in_parts() -> None:
    store = Store(tail(("a", [user("x" * 9000), said("ok")])).messages)
    maker = summarizer(lambda _: [Say("notes")])
    assert await maker.summarize(store, KEY) == 1
    assert [question(request).count("x") for request in requests(maker)] == [3994, 4000, 1006]
    assert [each.through_seq for each in store.summaries] == [1]


async def test_a_model_with_a_small_window_is_given_little_at_once() -> None:
    model = ScriptedModel(lambda _: [Say("notes")])
    model.context_window = 4000
    store = long_talk(turns=12)
    maker = ModelSummarizer(model, Letters(), COMPACTION, TailLimit(500, 1000))
    await maker.summarize(store, KEY)
    assert len(model.requests) == 2
    assert all(len(question(request)) < 2000 for request in model.requests)


async def test_a_model_that_finds_it_too_long_is_given_less() -> None:
    def small(request: ModelRequest) -> Sequence[Line]:
        return [Fail(ContextTooLongError("too long"))] if len(question(request)) > 1500 else [Say("notes")]

    store, maker = long_talk(turns=12), summarizer(small)
    await maker.summarize(store, KEY)
    assert store.summaries[-1].through_seq == 22
    before = len(requests(maker))
    await maker.summarize(long_talk(turns=12), KEY)
    assert len(question(requests(maker)[before])) <= 1500, "which is not forgotten"


async def test_that_it_is_too_long_is_not_taken_for_that_there_is_no_schema() -> None:
    answers = in_order(Fail(ContextTooLongError("too long")), Say("notes"))
    maker = summarizer(answers)
    await maker.summarize(long_talk(), KEY)
    assert all(request.output_schema is not None for request in requests(maker))


async def test_many_small_messages_are_covered_to_the_half_that_is_read() -> None:
    store = Store(tail(*((str(n), [user("")]) for n in range(20))).messages)
    assert await summarizer(in_order(Say("notes")), most=20).summarize(store, KEY) == 10


async def test_where_nothing_is_sent_no_model_is_asked() -> None:
    session = tail(*((str(n), [user("x")]) for n in range(20)), unanswered="superseded")
    store, maker = Store(session.messages), summarizer(in_order(), most=20)
    assert await maker.summarize(store, KEY) == 10
    assert [(each.through_seq, each.text) for each in store.summaries] == [(10, "")]


async def test_a_model_that_finds_anything_too_long_ends_with_its_error() -> None:
    with pytest.raises(ContextTooLongError):
        await summarizer(lambda _: [Fail(ContextTooLongError("too long"))]).summarize(long_talk(), KEY)


def shortest(request: ModelRequest) -> Sequence[Line]:
    return [Say("n")]


@given(session=sessions(), budget=st.integers(60, 300))
@settings(max_examples=200)
async def test_afterwards_all_that_no_summary_covers_is_sent_whole(session: Tail, budget: int) -> None:
    """But for a last unit that is too large by itself."""
    compaction = Compaction(budget, threshold=0.8, target=0.6)
    store, maker = Store(session.messages), summarizer(shortest, compaction)
    while await maker.summarize(store, KEY):
        pass
    memory = TokenBudget(budget, Letters(), compaction)
    seen = store.seen
    selection = memory.select(seen)
    assert sum(size(each.message) for each in selection.sent) <= budget
    if not is_due(seen, compaction, Letters(), messages=500):
        assert not selection.overflowed
        return
    # Nothing more can be covered.
    assert await maker.summarize(store, KEY) == 0
