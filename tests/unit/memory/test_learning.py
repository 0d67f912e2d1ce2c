from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest

from hector.domain.messages import Data, File, Message, ModelMessage, Text, Usage, UserMessage
from hector.domain.models import ModelEvent, ModelReply, ModelRequest
from hector.domain.tokens import MESSAGE_TOKENS
from hector.domain.tools import ToolSpec
from hector.memory.learning import LearningModel
from hector.memory.tokens import LearntCounter
from tests.unit.memory.sessions import Letters, asking, result, said, user

LONG = "x" * 500


@dataclass
class Reporting:
    """Says that a letter is so many percent of a token."""

    percent: int = 200
    name: str = "unknown"
    context_window: int | None = 8000
    closed: bool = False
    warm: bool = False
    counted: list[int] = field(default_factory=list)

    async def respond(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        texts = [request.instructions] if request.instructions else []
        texts += [str(getattr(message, "text", "")) for message in request.messages]
        letters = sum(MESSAGE_TOKENS + len(text) for text in texts)
        yield ModelReply(said("ok"), Usage(letters * self.percent // 100, 1))

    async def warm_up(self) -> None:
        self.warm = True

    async def close(self) -> None:
        self.closed = True


def learning(percent: int = 200) -> tuple[LearningModel, LearntCounter, Reporting]:
    counter, model = LearntCounter(Letters()), Reporting(percent)
    return LearningModel(model, counter), counter, model


async def ask(model: LearningModel, *messages: Message, instructions: str = "be kind") -> list[ModelEvent]:
    return [event async for event in model.respond(ModelRequest(instructions, messages))]


async def test_it_answers_and_its_counter_learns() -> None:
    model, counter, _ = learning()
    (reply,) = await ask(model, user(LONG), said("ok"), user("and?"))
    assert isinstance(reply, ModelReply)
    assert reply.message == said("ok")
    assert counter.percent == 200


async def test_calls_and_results_count_too() -> None:
    class Calling(Reporting):
        async def respond(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
            letters = len(LONG) + len("f{}") + len(LONG) + 3 * MESSAGE_TOKENS
            yield ModelReply(said("ok"), Usage(letters * 3 // 2, 1))

    counter = LearntCounter(Letters())
    model = LearningModel(Calling(), counter)
    await ask(model, user(LONG), asking("c"), result("c", LONG), instructions="")
    assert counter.percent == 150


@pytest.mark.parametrize(
    "message",
    [
        UserMessage((Text(LONG), File("image/png", data=b"x"))),
        UserMessage((Text(LONG), Data({"a": 1}))),
        user("short"),
        user("x" * 70_000),
    ],
)
async def test_nothing_is_learnt_where_it_is_not_known_what_is_counted(message: Message) -> None:
    model, counter, _ = learning()
    await ask(model, message)
    assert counter.percent == 120


async def test_nothing_is_learnt_of_requests_with_tools_or_a_schema() -> None:
    model, counter, _ = learning()
    for request in (
        ModelRequest("", [user(LONG)], tools=[ToolSpec("f", "", {})]),
        ModelRequest("", [user(LONG)], output_schema={}),
    ):
        async for _ in model.respond(request):
            pass
    assert counter.percent == 120


async def test_nothing_is_learnt_where_nothing_is_reported() -> None:
    model, counter, _ = learning(percent=0)
    await ask(model, user(LONG))
    assert counter.percent == 120


async def test_few_of_many_requests_are_counted() -> None:
    class Watched(Letters):
        counts = 0

        def count(self, text: str) -> int:
            self.counts += 1
            return super().count(text)

    counter = LearntCounter(watched := Watched())
    model = LearningModel(Reporting(), counter)
    for _ in range(100):
        await ask(model, user(LONG), instructions="")
    assert watched.counts == 6, "1, 2, 3, 32, 64, 96"


async def test_all_else_is_the_model_s() -> None:
    model, _, inner = learning()
    assert (model.name, model.context_window) == ("unknown", 8000)
    await model.warm_up()
    await model.close()
    assert (inner.warm, inner.closed) == (True, True)


async def test_a_caller_that_leaves_closes_the_model_s_answer() -> None:
    class Endless(Reporting):
        left = False

        async def respond(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
            try:
                while True:
                    yield ModelReply(ModelMessage(()))
            finally:
                self.left = True

    inner = Endless()
    events = LearningModel(inner, LearntCounter(Letters())).respond(ModelRequest("", [user("x")]))
    await anext(events)
    await events.aclose()
    assert inner.left
