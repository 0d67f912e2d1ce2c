import asyncio
from collections.abc import Sequence

import pytest

from hector.domain.errors import (
    ContextTooLongError,
    ModelAuthError,
    ModelError,
    ModelRateLimitError,
    ModelRequestError,
    ModelUnavailableError,
    ModelUnreachableError,
)
from hector.domain.events import TextDelta
from hector.domain.messages import (
    Data,
    File,
    Message,
    ModelMessage,
    ModelPart,
    Text,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from hector.domain.models import ModelReply, ModelRequest
from hector.llm.scripted import Say, ScriptedModel, echo, in_order, obey, recalled, scripted_model


def user(text: str) -> UserMessage:
    return UserMessage((Text(text),))


async def reply_of(model: ScriptedModel, *messages: Message, message_id: str | None = None) -> ModelMessage:
    request = ModelRequest("", messages, message_id=message_id)
    events = [event async for event in model.respond(request)]
    assert isinstance(events[-1], ModelReply)
    return events[-1].message


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        (["What is my project ID?"], "I do not know."),
        (["Remember: my project ID is ALPHA-789"], "Got it: Remember: my project ID is ALPHA-789"),
        (
            ["Remember: my project ID is ALPHA-789", "What is my project ID?"],
            "You told me: Remember: my project ID is ALPHA-789",
        ),
        (
            ["my favorite color is blue", "my dog is Rex", "What's my favorite color?"],
            "You told me: my favorite color is blue",
        ),
        (["my color is blue", "my color is red", "what is my color?"], "You told me: my color is red"),
        (["my color is blue", "what is my color?", "And my color?"], "You told me: my color is blue"),
        (["my color is blue", "How old am I?"], "I do not know."),
        (["Meine Größe ist 180", "Größe?"], "You told me: Meine Größe ist 180"),
    ],
)
def test_recall_knows_what_it_was_sent_and_nothing_else(lines: Sequence[str], answer: str) -> None:
    assert recalled(lines) == answer


async def test_recall_reads_the_lines_of_the_user_only() -> None:
    model = scripted_model("recall")
    message = await reply_of(
        model, user("hello"), ModelMessage((Text("my project is BETA"),)), user("my project?")
    )
    assert message.text == "I do not know."


@pytest.mark.parametrize("name", ["", "echo"])
async def test_echo_repeats_the_newest_message(name: str) -> None:
    model = scripted_model(name)
    assert (await reply_of(model, user("one"), user("two"))).text == "You said: two"
    told = await reply_of(model, user("two"), ToolMessage(ToolResult("c", "clock", "noon")))
    assert told.text == "clock said: noon"


def test_an_unknown_script_names_those_there_are() -> None:
    with pytest.raises(ModelUnavailableError, match=r"'poem' \(known: echo, recall, obey\)"):
        scripted_model("poem")


async def test_given_answers_come_in_order_and_then_an_error() -> None:
    model = ScriptedModel(in_order(Say("one"), [Say("two")]))
    assert (await reply_of(model, user(""))).text == "one"
    assert (await reply_of(model, user(""))).text == "two"
    with pytest.raises(ModelRequestError, match="has 2 answers and was asked for one more"):
        await reply_of(model, user(""))


@pytest.mark.parametrize(
    ("pieces", "text", "deltas"),
    [
        (1, "abc", ["abc"]),
        (2, "abcd", ["ab", "cd"]),
        (3, "abcd", ["a", "bc", "d"]),
        (9, "abc", ["a", "b", "c"]),
        (3, "", []),
    ],
)
async def test_a_text_is_streamed_in_as_many_pieces_as_asked(
    pieces: int, text: str, deltas: list[str]
) -> None:
    model = ScriptedModel(in_order(Say(text, pieces)))
    events = [event async for event in model.respond(ModelRequest("", [user("")]))]
    assert [event.text for event in events if isinstance(event, TextDelta)] == deltas


async def test_obey_calls_tools_and_goes_on_after_their_results() -> None:
    model = ScriptedModel(obey)
    asked = user('say first\ncall clock\ncall weather {"city": "Bern"}\nsay then\nignored nonsense')
    first = await reply_of(model, user("earlier"), ModelMessage((Text("x"),)), asked)
    assert first.text == "first"
    clock, weather = first.calls
    assert (clock.name, clock.arguments) == ("clock", "{}")
    assert (weather.name, weather.arguments) == ("weather", '{"city": "Bern"}')
    results = [ToolMessage(ToolResult(call.id, call.name, "ok")) for call in first.calls]
    assert (await reply_of(model, asked, first, *results)).text == "then"


@pytest.mark.parametrize(
    ("order", "part"),
    [
        ('data {"n": [1, 2]}', Data({"n": [1, 2]})),
        ("file a.txt text/plain some words", File("text/plain", "a.txt", data=b"some words")),
        ("file a.txt text/plain", File("text/plain", "a.txt", data=b"")),
        ("file a.txt text/plain https://x.example/a", File("text/plain", "a.txt", url="https://x.example/a")),
        (
            "file a.txt text/plain see https://x.example/a",
            File("text/plain", "a.txt", b"see https://x.example/a"),
        ),
    ],
)
async def test_obey_answers_with_data_and_files(order: str, part: ModelPart) -> None:
    assert (await reply_of(ScriptedModel(obey), user(order))).parts == (part,)


@pytest.mark.parametrize(
    ("message_id", "answer"),
    [
        ("order-1", "the first"),
        ("order-special-1", "the second"),
        ("orde", "from the text"),
        (None, "from the text"),
    ],
)
async def test_orders_given_beforehand_are_found_by_the_longest_start_of_the_messages_id(
    message_id: str | None, answer: str
) -> None:
    model = scripted_model("obey", {"order": "say the first", "order-special": "say the second"})
    assert (await reply_of(model, user("say from the text"), message_id=message_id)).text == answer


async def test_obey_echoes_the_last_result_where_no_order_is_left() -> None:
    asked = user("call clock")
    called = ModelMessage((ToolCall("c", "clock", "{}"),))
    result = ToolMessage(ToolResult("c", "clock", "noon"))
    assert (await reply_of(ScriptedModel(obey), asked, called, result)).text == "clock said: noon"


@pytest.mark.parametrize(
    "text",
    ["hello", "data {", "file a.txt", "fail gracefully", "stream x y", "pause soon", "wait", "call", ""],
)
async def test_obey_echoes_what_is_no_order(text: str) -> None:
    assert (await reply_of(ScriptedModel(obey), user(text))).text == f"You said: {text}"


@pytest.mark.parametrize(
    ("order", "error"),
    [
        ("fail auth", ModelAuthError),
        ("fail rate_limit", ModelRateLimitError),
        ("fail unreachable", ModelUnreachableError),
        ("fail request", ModelRequestError),
        ("fail context", ContextTooLongError),
        ("fail unavailable", ModelUnavailableError),
    ],
)
async def test_obey_fails_as_told(order: str, error: type[ModelError]) -> None:
    with pytest.raises(error) as raised:
        await reply_of(ScriptedModel(obey), user(order))
    assert type(raised.value) is error


async def test_obey_says_when_to_retry() -> None:
    with pytest.raises(ModelRateLimitError) as raised:
        await reply_of(ScriptedModel(obey), user("fail rate_limit 2.5"))
    assert raised.value.retry_after == 2.5


async def test_a_gate_holds_an_answer_until_it_is_opened() -> None:
    model = ScriptedModel(obey)
    task = asyncio.create_task(reply_of(model, user("wait go\npause 0\nsay done")))
    gate = model.gate("go")
    await gate.reached.wait()
    assert model.running == 1
    gate.opened.set()
    assert (await task).text == "done"
    assert model.running == 0


async def test_what_was_asked_can_be_looked_at() -> None:
    model = ScriptedModel(echo)
    await reply_of(model, user("one"))
    await reply_of(model, user("two"))
    assert [request.messages[-1] for request in model.requests] == [user("one"), user("two")]
