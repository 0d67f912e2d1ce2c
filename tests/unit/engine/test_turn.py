import asyncio
import logging
from collections.abc import Mapping, Sequence

import pytest

from hector.domain.errors import (
    InputRequiredError,
    LeaseLostError,
    ModelRateLimitError,
    ModelRequestError,
    OutcomeUnknownError,
    StoreUnavailableError,
    ToolError,
)
from hector.domain.events import TextDelta, ToolFinished, ToolStarted, TurnEvent
from hector.domain.memory import Tail
from hector.domain.messages import (
    Data,
    File,
    JsonValue,
    Message,
    ModelMessage,
    StoredMessage,
    Text,
    ToolMessage,
    Usage,
    UserMessage,
)
from hector.domain.turns import Lease, NewMessage, Outcome, Reason, Turn, TurnState
from tests.unit.engine.fakes import (
    FakeTool,
    Forever,
    RecordingStore,
    Scene,
    ScriptedModel,
    asking,
    call,
    result,
    said,
    user,
)


def tool_message(text: str, name: str, *, id: str = "c1", is_error: bool = False) -> ToolMessage:  # noqa: A002
    return ToolMessage(result(text, name, id=id, is_error=is_error))


def asked_user(question: str, name: str, *, id: str = "c1") -> ToolMessage:  # noqa: A002
    text = f"the user was asked: {question}; the answer follows"
    return ToolMessage(result(text, name, id=id, question=question))


async def test_an_answer_is_stored_with_the_turns_end_and_only_then_given() -> None:
    scene = Scene(ScriptedModel(said("hello there")))
    turn = await scene.run.run()
    assert scene.store.log == [said("hello there"), TurnState.COMPLETED]
    assert (turn.state, turn.reason, turn.usage) == (TurnState.COMPLETED, None, Usage(10, 1))
    assert scene.events == [TextDelta("hello there")]
    assert scene.store.calls == 1


async def test_the_model_is_sent_the_history_and_the_turns_own_messages() -> None:
    tail = Tail((StoredMessage(user("before"), 1, "t0"), StoredMessage(said("yes"), 2, "t0")))
    message = UserMessage((Text("look"), File("image/png", data=b"\x89"), Data({"a": 1})))
    scene = Scene(ScriptedModel(said("ok")), FakeTool("f"), own=[message], tail=tail, stream=False)
    await scene.run.run()
    request = scene.model.requests[0]
    assert list(request.messages) == [user("before"), said("yes"), message]
    assert request.instructions == "Be brief."
    assert [spec.name for spec in request.tools] == ["f"]
    assert not request.stream
    assert scene.events == []


async def test_the_turns_own_messages_are_sent_once_even_if_the_history_holds_them() -> None:
    tail = Tail((StoredMessage(user("before"), 1, "t0"), StoredMessage(user("hi"), 2, "t1")))
    scene = Scene(ScriptedModel(said("ok")), own=[user("hi")], tail=tail)
    await scene.run.run()
    assert list(scene.sent) == [user("before"), user("hi")]


async def test_a_call_is_stored_before_its_tool_runs_and_its_result_before_the_model_is_asked() -> None:
    seen: list[list[Message]] = []

    async def look(arguments: Mapping[str, JsonValue]) -> str:
        seen.append(store.messages.copy())
        return "sunny"

    async def answer() -> ModelMessage:
        seen.append(store.messages.copy())
        return said("It is sunny.")

    store = RecordingStore()
    asked = asking(call("weather", '{"city": "Oslo"}'))
    scene = Scene(ScriptedModel(asked, answer), FakeTool("weather", look), store=store)
    turn = await scene.run.run()
    sunny = tool_message("sunny", "weather")
    assert seen == [[asked], [asked, sunny]]
    assert store.log == [asked, sunny, said("It is sunny."), TurnState.COMPLETED]
    assert list(scene.sent) == [user("hi"), asked, sunny]
    assert turn.usage == Usage(20, 2)
    assert scene.events == [
        ToolStarted(asked.calls[0]),
        ToolFinished(sunny.result),
        TextDelta("It is sunny."),
    ]


async def test_no_tool_runs_if_the_call_cannot_be_stored() -> None:
    tool = FakeTool("pay")
    store = RecordingStore()
    store.lose_lease()
    scene = Scene(ScriptedModel(asking(call("pay"))), tool, store=store)
    with pytest.raises(LeaseLostError):
        await scene.run.run()
    assert tool.runs == []


async def test_calls_run_side_by_side_and_their_results_are_sent_in_the_calls_order() -> None:
    second_done = asyncio.Event()

    async def slow(arguments: Mapping[str, JsonValue]) -> str:
        await second_done.wait()
        return "slow"

    async def fast(arguments: Mapping[str, JsonValue]) -> str:
        return "fast"

    async def stored() -> None:
        if len(store.appended) == 2:
            second_done.set()

    store = RecordingStore()
    store.before_append = stored
    asked = asking(call("slow", id="a"), call("fast", id="b"), call("fast", id="c"))
    scene = Scene(
        ScriptedModel(asked, said("ok")), FakeTool("slow", slow), FakeTool("fast", fast), store=store
    )
    await scene.run.run()
    a, b, c = (
        tool_message("slow", "slow", id="a"),
        tool_message("fast", "fast", id="b"),
        tool_message("fast", "fast", id="c"),
    )
    assert store.messages == [asked, b, c, a, said("ok")]
    assert list(scene.sent) == [user("hi"), asked, a, b, c]


async def test_results_that_come_at_once_are_all_stored() -> None:
    async def slowly() -> None:
        await asyncio.sleep(0)

    store = RecordingStore()
    store.before_append = slowly
    ids = [f"c{number}" for number in range(5)]
    scene = Scene(
        ScriptedModel(asking(*(call("f", id=each) for each in ids)), said("ok")), FakeTool("f"), store=store
    )
    await scene.run.run()
    stored = [each.result.call_id for each in store.messages if isinstance(each, ToolMessage)]
    assert sorted(stored) == ids


async def test_the_model_is_stopped_before_a_turn_ends_early() -> None:
    class Watching(RecordingStore):
        async def end(self, lease: Lease, messages: Sequence[NewMessage], outcome: Outcome) -> Turn:
            assert model.closed == 1
            return await super().end(lease, messages, outcome)

    def refuse(event: TurnEvent) -> None:
        raise KeyError(event)

    model = ScriptedModel(said("hello"))
    scene = Scene(model, store=Watching(), emit=refuse)
    assert (await scene.run.run()).reason == Reason.INTERNAL


async def test_tokens_are_stored_with_each_message() -> None:
    scene = Scene(
        ScriptedModel(asking(call("f", '{"a": 1}')), said("one two three")), FakeTool("f", "four five")
    )
    await scene.run.run()
    # 4 for each message; a call is its name and its arguments.
    assert [new.tokens for new in scene.store.appended] == [4 + 2, 4 + 2, 4 + 3]


async def test_whether_a_tool_may_run_again_is_stored_with_its_call() -> None:
    asked = asking(call("read", id="a"), call("pay", id="b", idempotent=True))
    tools = (FakeTool("read", idempotent=True), FakeTool("pay"))
    scene = Scene(ScriptedModel(asked, said("ok")), *tools)
    await scene.run.run()
    stored = scene.store.messages[0]
    assert isinstance(stored, ModelMessage)
    assert [each.idempotent for each in stored.calls] == [True, False]


async def test_calls_of_a_second_step_with_the_ids_of_the_first_get_new_ones() -> None:
    tool = FakeTool("f")
    scene = Scene(ScriptedModel(asking(call("f")), asking(call("f")), said("ok")), tool)
    await scene.run.run()
    assert [
        each.calls[0].id for each in scene.store.messages if isinstance(each, ModelMessage) and each.calls
    ] == [
        "c1",
        "call_2",
    ]
    assert len(tool.runs) == 2


async def test_an_error_of_a_tool_goes_to_the_model_and_the_turn_goes_on() -> None:
    scene = Scene(ScriptedModel(asking(call("f")), said("sorry")), FakeTool("f", ToolError("closed")))
    turn = await scene.run.run()
    assert turn.state is TurnState.COMPLETED
    assert scene.sent[-1] == tool_message("closed", "f", is_error=True)


async def test_a_question_pauses_the_turn_after_the_other_calls_have_finished() -> None:
    asked = asking(call("book", id="a"), call("look", id="b"), call("pick", id="c"))
    scene = Scene(
        ScriptedModel(asked),
        FakeTool("book", InputRequiredError("which day?")),
        FakeTool("look", "free"),
        FakeTool("pick", InputRequiredError("which room?")),
    )
    turn = await scene.run.run()
    assert scene.store.outcome == Outcome(TurnState.INPUT_REQUIRED, Reason.WAITING_FOR_INPUT)
    assert (turn.state, turn.usage) == (TurnState.INPUT_REQUIRED, Usage(10, 1))
    assert set(scene.store.messages[1:4]) == {
        asked_user("which day?", "book", id="a"),
        tool_message("free", "look", id="b"),
        asked_user("which room?", "pick", id="c"),
    }
    assert scene.store.messages[4] == said("which day?\nwhich room?")


async def test_a_question_that_is_stored_pauses_the_turn_when_it_is_taken_up_again() -> None:
    own: list[Message] = [
        user("book"),
        asking(call("book", id="a"), call("look", id="b", idempotent=True)),
        asked_user("which day?", "book", id="a"),
    ]
    look = FakeTool("look", "free", idempotent=True)
    scene = Scene(ScriptedModel(), FakeTool("book"), look, own=own)
    turn = await scene.run.run()
    assert turn.state is TurnState.INPUT_REQUIRED
    assert scene.store.messages == [tool_message("free", "look", id="b"), said("which day?")]


async def test_a_resumed_turn_asks_the_model_with_all_its_messages() -> None:
    own: list[Message] = [
        user("book"),
        asking(call("book")),
        asked_user("which day?", "book"),
        said("which day?"),
        user("monday"),
    ]
    scene = Scene(ScriptedModel(said("done")), FakeTool("book"), own=own)
    await scene.run.run()
    assert list(scene.sent) == own
    assert scene.store.log == [said("done"), TurnState.COMPLETED]


async def test_calls_that_lack_a_result_are_run_first_when_a_turn_is_taken_up_again() -> None:
    asked = asking(call("f", id="a", idempotent=True), call("g", id="b", idempotent=True))
    done, missing = FakeTool("f", idempotent=True), FakeTool("g", "2", idempotent=True)
    own: list[Message] = [user("hi"), asked, tool_message("1", "f", id="a")]
    scene = Scene(ScriptedModel(said("ok")), done, missing, own=own)
    await scene.run.run()
    assert (done.runs, missing.runs) == ([], [{}])
    assert scene.store.log == [tool_message("2", "g", id="b"), said("ok"), TurnState.COMPLETED]


async def test_a_model_that_keeps_calling_tools_runs_out_of_steps() -> None:
    tool = FakeTool("f", idempotent=True)
    asked = [asking(call("f", id=f"c{number}")) for number in range(3)]
    turn = await Scene(ScriptedModel(*asked), tool, max_steps=3).run.run()
    assert (turn.state, turn.reason) == (TurnState.FAILED, Reason.OUT_OF_STEPS)
    assert turn.error == (
        "no answer after 3 model calls, the limit (turns.max_steps): the model kept calling tools"
    )
    assert len(tool.runs) == 2
    assert turn.usage == Usage(30, 3)


@pytest.mark.parametrize(
    ("error", "retryable"),
    [(ModelRateLimitError("slow down"), True), (ModelRequestError("too odd"), False)],
)
async def test_a_models_error_ends_the_turn_with_its_reason(
    error: ModelRateLimitError | ModelRequestError, retryable: bool
) -> None:
    scene = Scene(ScriptedModel(error))
    turn = await scene.run.run()
    assert (turn.state, turn.reason, turn.error) == (TurnState.FAILED, error.reason, str(error))
    assert turn.retryable is retryable
    assert scene.store.messages == []


@pytest.mark.parametrize(
    ("idempotent", "reason", "retryable", "error"),
    [
        (True, "model_rate_limit", True, "slow down"),
        (
            False,
            Reason.TOOL_UNKNOWN,
            False,
            "slow down; the message is not run again, because it may have had effects through 'pay'",
        ),
    ],
)
async def test_a_failure_after_a_call_with_effects_must_not_be_repeated(
    idempotent: bool, reason: str, retryable: bool, error: str
) -> None:
    model = ScriptedModel(asking(call("pay")), ModelRateLimitError("slow down"))
    turn = await Scene(model, FakeTool("pay", idempotent=idempotent)).run.run()
    assert (turn.reason, turn.retryable, turn.error) == (reason, retryable, error)
    assert turn.usage == Usage(10, 1)


async def test_effects_of_an_earlier_run_of_the_turn_count() -> None:
    own: list[Message] = [
        user("a"),
        asking(call("pay")),
        tool_message("ok", "pay"),
        said("sure?"),
        user("yes"),
    ]
    turn = await Scene(ScriptedModel(ModelRequestError("no")), FakeTool("pay"), own=own).run.run()
    assert turn.reason == Reason.TOOL_UNKNOWN


async def test_a_call_that_was_never_stored_has_had_no_effects() -> None:
    turn = await Scene(ScriptedModel(asking(call("pay"))), FakeTool("pay"), max_steps=1).run.run()
    assert turn.reason == Reason.OUT_OF_STEPS


@pytest.mark.parametrize(
    "defect", [KeyError("secret"), asyncio.CancelledError("secret")], ids=["an error", "a stray cancellation"]
)
async def test_a_defect_ends_the_turn_without_its_text_and_is_logged(
    defect: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    turn = await Scene(ScriptedModel(defect)).run.run()
    assert (turn.state, turn.reason, turn.error) == (TurnState.FAILED, Reason.INTERNAL, "internal error")
    assert type(defect).__name__ in caplog.text
    assert "secret" not in caplog.text


async def test_a_model_that_ends_without_a_reply_is_a_defect(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(ScriptedModel):
        async def respond(self, request):  # type: ignore[no-untyped-def]
            yield TextDelta("half")

    turn = await Scene(Silent()).run.run()
    assert turn.reason == Reason.INTERNAL
    assert "RuntimeError" in caplog.text


async def test_cancelling_stops_the_model_and_leaves_the_end_to_the_caller() -> None:
    forever = Forever()
    scene = Scene(ScriptedModel(forever))
    task = asyncio.create_task(scene.run.run())
    await forever.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert forever.stopped
    assert scene.model.closed == 1
    assert scene.store.outcome is None
    turn = await scene.store.end(scene.run.lease, [], scene.run.canceled())
    assert (turn.state, turn.reason) == (TurnState.CANCELED, Reason.CANCELED)


async def test_cancelling_stops_all_tools_and_the_lease_is_the_current_one() -> None:
    one, two = Forever(), Forever()
    asked = asking(call("f", id="a"), call("g", id="b"))
    scene = Scene(ScriptedModel(asked), FakeTool("f", one), FakeTool("g", two))
    task = asyncio.create_task(scene.run.run())
    await one.started.wait()
    await two.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert one.stopped
    assert two.stopped
    shut_down = scene.run.failed(Reason.SHUTDOWN, "the server was stopped")
    turn = await scene.store.end(scene.run.lease, [], shut_down)
    assert turn.reason == Reason.TOOL_UNKNOWN
    assert turn.usage == Usage(10, 1)


async def test_a_write_under_way_is_finished_before_a_cancellation_passes() -> None:
    writing, go_on = asyncio.Event(), asyncio.Event()

    async def held() -> None:
        writing.set()
        await go_on.wait()

    store = RecordingStore()
    store.before_append = held
    tool = FakeTool("f")
    scene = Scene(ScriptedModel(asking(call("f"))), tool, store=store)
    before = scene.run.lease
    task = asyncio.create_task(scene.run.run())
    await writing.wait()
    task.cancel()
    # Once more, as an impatient caller does.
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tool.runs == []
    assert scene.run.lease.seq == before.seq + 1
    await store.end(scene.run.lease, [], scene.run.canceled())


async def test_a_lease_lost_in_one_call_stops_the_others(caplog: pytest.LogCaptureFixture) -> None:
    forever = Forever()

    async def lose(arguments: Mapping[str, JsonValue]) -> str:
        await forever.started.wait()
        store.lose_lease()
        return "done"

    store = RecordingStore()
    asked = asking(call("f", id="a"), call("g", id="b"))
    scene = Scene(ScriptedModel(asked), FakeTool("f", forever), FakeTool("g", lose), store=store)
    with pytest.raises(LeaseLostError):
        await scene.run.run()
    assert forever.stopped
    assert store.outcome is None
    assert caplog.text == ""
    assert not any(isinstance(event, ToolFinished) for event in scene.events)


@pytest.mark.parametrize("trouble", [OutcomeUnknownError("?"), StoreUnavailableError("!")])
async def test_an_answer_that_could_not_be_stored_is_stored_again_and_not_paid_twice(
    trouble: OutcomeUnknownError | StoreUnavailableError,
) -> None:
    scene = Scene(ScriptedModel(said("hello")), store=RecordingStore(trouble))
    turn = await scene.run.run()
    assert turn.state is TurnState.COMPLETED
    assert scene.store.log == [said("hello"), TurnState.COMPLETED]
    assert len(scene.model.requests) == 1


async def test_a_write_whose_outcome_was_unknown_is_repeated_with_the_same_lease() -> None:
    store = RecordingStore()
    store.troubles_after_commit = [OutcomeUnknownError("?")]
    tool = FakeTool("f")
    scene = Scene(ScriptedModel(asking(call("f")), said("ok")), tool, store=store)
    turn = await scene.run.run()
    assert turn.state is TurnState.COMPLETED
    assert store.messages == [asking(call("f")), tool_message("done", "f"), said("ok")]
    assert len(tool.runs) == 1


async def test_a_store_that_stays_silent_leaves_the_outcome_unknown() -> None:
    scene = Scene(
        ScriptedModel(said("hello")), store=RecordingStore(StoreUnavailableError("down")), patience=0
    )
    with pytest.raises(OutcomeUnknownError, match="the same message id is safe to repeat"):
        await scene.run.run()
    assert scene.store.outcome is None


async def test_a_failed_turn_is_not_logged_with_what_was_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    scene = Scene(
        ScriptedModel(asking(call("f")), KeyError("x")), FakeTool("f", "secret"), own=[user("secret")]
    )
    await scene.run.run()
    assert "secret" not in caplog.text
