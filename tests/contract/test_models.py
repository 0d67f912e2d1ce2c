"""What every `Model` does, whoever answers: the scripted model, and a provider's over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

import pytest

from hector.domain.errors import ContextTooLongError, ModelAuthError, ModelError, ModelRateLimitError
from hector.domain.events import TextDelta, ThinkingDelta
from hector.domain.messages import (
    Message,
    ModelMessage,
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
    join_text,
)
from hector.domain.models import Model, ModelEvent, ModelReply, ModelRequest
from hector.domain.tools import ToolSpec
from hector.llm.provider import ProviderModel, openai_model
from hector.llm.resolve import LlmEntry, resolve
from hector.llm.scripted import Call, Fail, Line, Say, ScriptedModel, Think, Wait, in_order
from tests.fakes.openai_server import Behaviour, FakeOpenAI

WEATHER = ToolSpec(
    "weather", "Tells the weather.", {"type": "object", "properties": {"city": {"type": "string"}}}
)


class Stage(Protocol):
    """A model, and what it will answer to the next requests."""

    @property
    def model(self) -> Model: ...

    def prepare(self, *answers: Sequence[Line]) -> None: ...

    async def waiting(self) -> None:
        """Until the model waits in the middle of an answer."""
        ...

    async def stopped(self) -> None:
        """Until whoever answered has noticed that nobody listens."""
        ...


class ScriptedStage:
    def __init__(self) -> None:
        self.model = self._model = ScriptedModel(in_order())

    def prepare(self, *answers: Sequence[Line]) -> None:
        self.model = self._model = ScriptedModel(in_order(*answers))

    async def waiting(self) -> None:
        await self._model.gate("go").reached.wait()

    async def stopped(self) -> None:
        assert self._model.running == 0


@dataclass
class ProviderStage:
    fake: FakeOpenAI
    model: ProviderModel

    def prepare(self, *answers: Sequence[Line]) -> None:
        self.fake.behave(*map(_behaviour, answers))

    async def waiting(self) -> None:
        await self.fake.until(lambda: self.fake.held > 0)

    async def stopped(self) -> None:
        await self.fake.until(lambda: self.fake.disconnects > 0)


_WIRE_ERRORS = {
    ModelAuthError: (401, "invalid_api_key"),
    ContextTooLongError: (400, "context_length_exceeded"),
}


def _behaviour(answer: Sequence[Line]) -> Behaviour:
    text, pieces, thinking, hold, hold_after = "", 1, None, False, None
    calls: list[dict[str, str]] = []
    for line in answer:
        match line:
            case Say():
                text, pieces = text + line.text, pieces + line.pieces - 1
            case Think():
                thinking = line.text
            case Call():
                calls.append({"name": line.tool, "arguments": line.arguments})
            case Wait():
                hold, hold_after = not text, 1 if text else None
            case Fail(error=ModelRateLimitError() as error):
                return Behaviour(status=429, headers={"retry-after": str(error.retry_after)})
            case Fail(error=error):
                status, code = _WIRE_ERRORS[type(error)]
                return Behaviour(status=status, body={"error": {"message": "no", "code": code}})
            case _:
                raise AssertionError(line)
    return Behaviour(
        text=text, chunks=pieces, thinking=thinking, calls=calls, hold=hold, hold_after=hold_after
    )


@pytest.fixture(params=["scripted", "provider"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    if request.param == "scripted":
        yield ScriptedStage()
        return
    async with FakeOpenAI() as fake:
        model = openai_model(resolve(LlmEntry(model="fake", host=fake.url), {}))
        yield ProviderStage(fake, model)
        await model.close()


def asking(text: str = "hello", *, stream: bool = True) -> ModelRequest:
    return ModelRequest("Be brief.", [UserMessage((Text(text),))], [WEATHER], stream=stream)


async def answer(model: Model, request: ModelRequest) -> list[ModelEvent]:
    return [event async for event in model.respond(request)]


def reply_in(events: Sequence[ModelEvent]) -> ModelReply:
    last = events[-1]
    assert isinstance(last, ModelReply)
    return last


@pytest.mark.parametrize("stream", [True, False])
async def test_the_last_event_is_the_whole_reply_with_its_usage(stage: Stage, stream: bool) -> None:
    stage.prepare([Say("one two three", pieces=3)])
    events = await answer(stage.model, asking("hello there", stream=stream))
    reply = reply_in(events)
    assert reply.message == ModelMessage((Text("one two three"),))
    assert reply.usage.output_tokens == 3
    assert reply.usage.input_tokens >= 2
    assert not any(isinstance(event, ModelReply) for event in events[:-1])


async def test_deltas_come_in_pieces_that_make_up_the_text(stage: Stage) -> None:
    stage.prepare([Say("a rather long answer", pieces=5)])
    *deltas, reply = await answer(stage.model, asking())
    assert len(deltas) == 5
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == "a rather long answer"
    assert isinstance(reply, ModelReply)


async def test_nothing_is_streamed_to_who_does_not_listen(stage: Stage) -> None:
    stage.prepare([Say("a rather long answer", pieces=5)])
    assert len(await answer(stage.model, asking(stream=False))) == 1


async def test_a_delta_comes_before_the_answer_is_complete(stage: Stage) -> None:
    stage.prepare([Say("first"), Wait("go"), Say(" second")])
    async with aclosing(stage.model.respond(asking())) as events:
        first = await anext(events)
        assert isinstance(first, TextDelta)
        assert "first second".startswith(first.text)


@pytest.mark.parametrize("stream", [True, False])
async def test_thinking_is_kept_apart_from_the_text(stage: Stage, stream: bool) -> None:
    stage.prepare([Think("hm"), Say("yes")])
    events = await answer(stage.model, asking(stream=stream))
    thought, text = reply_in(events).message.parts
    assert isinstance(thought, Thinking)
    assert (thought.text, text) == ("hm", Text("yes"))
    assert events[:-1] == ([ThinkingDelta("hm"), TextDelta("yes")] if stream else [])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("arguments", ['{"city": "Bern"}', '{"city": ', "{}", "[1]", '{"city":\n"Zürich"}'])
async def test_a_tool_call_keeps_its_arguments_as_they_were_written(
    stage: Stage, stream: bool, arguments: str
) -> None:
    stage.prepare([Call("weather", arguments)])
    (call,) = reply_in(await answer(stage.model, asking(stream=stream))).message.calls
    assert (call.name, call.arguments) == ("weather", arguments)
    assert call.id


@pytest.mark.parametrize("stream", [True, False])
async def test_calls_side_by_side_have_ids_of_their_own(stage: Stage, stream: bool) -> None:
    stage.prepare(
        [Say("let me see"), Call("weather", '{"city":"Bern"}'), Call("weather", '{"city":"Basel"}')]
    )
    message = reply_in(await answer(stage.model, asking(stream=stream))).message
    assert message.text == "let me see"
    assert [call.arguments for call in message.calls] == ['{"city":"Bern"}', '{"city":"Basel"}']
    assert len({call.id for call in message.calls}) == 2


async def test_a_history_with_every_kind_of_message_is_answered(stage: Stage) -> None:
    stage.prepare([Say("done")])
    history: list[Message] = [
        UserMessage((Text("one"), Text("two"))),
        ModelMessage(
            (Thinking("hm"), Text("well"), ToolCall("c1", "weather", '{"broken'), ToolCall("c2", "x", "{}"))
        ),
        ToolMessage(ToolResult("c1", "weather", "no such city", is_error=True)),
        ToolMessage(ToolResult("c2", "x", "")),
        ModelMessage(()),
        UserMessage((Text(""),)),
    ]
    events = await answer(stage.model, ModelRequest("", history))
    assert join_text(reply_in(events).message.parts) == "done"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_empty_answer_is_an_empty_reply(stage: Stage, stream: bool) -> None:
    stage.prepare([Say("")])
    assert reply_in(await answer(stage.model, asking(stream=stream))).message.text == ""


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "error",
    [ModelAuthError("no"), ContextTooLongError("no"), ModelRateLimitError("no", retry_after=60)],
    ids=lambda error: type(error).__name__,
)
async def test_a_failure_is_the_error_that_says_who_must_act(
    stage: Stage, stream: bool, error: ModelError
) -> None:
    stage.prepare([Fail(error)])
    with pytest.raises(ModelError) as raised:
        await answer(stage.model, asking(stream=stream))
    assert type(raised.value) is type(error)
    if isinstance(raised.value, ModelRateLimitError):
        assert raised.value.retry_after == 60


async def test_after_a_failure_the_next_request_is_answered(stage: Stage) -> None:
    stage.prepare([Fail(ModelAuthError("no"))], [Say("yes")])
    with pytest.raises(ModelAuthError):
        await answer(stage.model, asking())
    assert reply_in(await answer(stage.model, asking())).message.text == "yes"


async def test_closing_the_answer_stops_the_model(stage: Stage) -> None:
    stage.prepare([Say("first"), Wait("go"), Say(" second")])
    async with aclosing(stage.model.respond(asking())) as events:
        await anext(events)
    await stage.stopped()


@pytest.mark.parametrize("stream", [True, False])
async def test_cancelling_the_task_stops_the_model(stage: Stage, stream: bool) -> None:
    stage.prepare([Wait("go"), Say("late")])
    task = asyncio.create_task(answer(stage.model, asking(stream=stream)))
    await stage.waiting()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await stage.stopped()


async def test_answers_are_given_side_by_side(stage: Stage) -> None:
    stage.prepare([Wait("go"), Say("late")], [Say("quick")])
    late = asyncio.create_task(answer(stage.model, asking()))
    await stage.waiting()
    assert reply_in(await answer(stage.model, asking())).message.text == "quick"
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late


async def test_a_model_can_be_warmed_up_and_closed_unasked(stage: Stage) -> None:
    await stage.model.warm_up()
    await stage.model.close()
    await stage.model.close()
