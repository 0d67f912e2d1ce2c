"""`ProviderModel` on the wire, against a server of its own that speaks the protocol."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

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
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from hector.domain.models import ModelEvent, ModelReply, ModelRequest
from hector.domain.tools import ToolSpec
from hector.llm.connection import Connection
from hector.llm.provider import ProviderModel, openai_model
from hector.llm.resolve import LlmEntry, ModelChoice, resolve
from tests.fakes.openai_server import Behaviour, FakeOpenAI

KEY = "sk-test-key"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


@pytest.fixture
async def model(fake: FakeOpenAI) -> AsyncIterator[ProviderModel]:
    opened = model_at(fake.url)
    yield opened
    await opened.close()


def model_at(url: str, *, silence: float = 30.0, attempts: int = 3, **more: Any) -> ProviderModel:
    def connect() -> Connection:
        from hector.llm.openai import connect_openai

        return connect_openai("gpt-4o", base_url=url, api_key=KEY, silence=silence, **more)

    return ProviderModel(connect, name="gpt-4o", retry_pauses=[0.0] * (attempts - 1))


async def reply_of(
    model: ProviderModel, *messages: Message, instructions: str = "", stream: bool = True
) -> ModelReply:
    request = ModelRequest(instructions, messages or (user("hello"),), stream=stream)
    events = [event async for event in model.respond(request)]
    assert isinstance(events[-1], ModelReply)
    return events[-1]


def user(text: str) -> UserMessage:
    return UserMessage((Text(text),))


async def sent_for(fake: FakeOpenAI, model: ProviderModel, *messages: Message, instructions: str = "") -> Any:
    fake.behave(Behaviour(text="ok"))
    await reply_of(model, *messages, instructions=instructions)
    return fake.bodies[-1]["messages"]


# What is sent


async def test_the_conversation_is_sent_in_the_words_of_the_protocol(
    fake: FakeOpenAI, model: ProviderModel
) -> None:
    sent = await sent_for(
        fake,
        model,
        user("weather?"),
        ModelMessage(
            (Text("wait"), ToolCall("c1", "weather", '{"city":"Bern"}'), ToolCall("c2", "clock", ""))
        ),
        ToolMessage(ToolResult("c1", "weather", "sunny")),
        ToolMessage(ToolResult("c2", "clock", "broken", is_error=True)),
        instructions="Be brief.",
    )
    assert sent == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": "wait",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Bern"}'},
                },
                {"id": "c2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": '{"error":"broken"}'},
    ]


async def test_tools_settings_and_the_key_are_sent(fake: FakeOpenAI) -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
    model = model_at(fake.url, temperature=0.0, max_tokens=7)
    request = ModelRequest("", [user("hi")], [ToolSpec("weather", "Tells it.", schema)])
    async with aclosing(model.respond(request)) as events:
        async for _ in events:
            pass
    await model.close()
    body = fake.bodies[0]
    function = body["tools"][0]["function"]
    assert (function["name"], function["description"]) == ("weather", "Tells it.")
    assert function["parameters"]["properties"] == schema["properties"]
    assert (body["model"], body["temperature"], body["max_completion_tokens"]) == ("gpt-4o", 0.0, 7)
    assert fake.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("stream", [False, True])
async def test_how_an_answer_is_to_be_made_is_sent(
    fake: FakeOpenAI, model: ProviderModel, stream: bool
) -> None:
    """But for its length: providers would count what the model thinks before it answers."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"gist": {"type": "string"}},
        "required": ["gist"],
        "additionalProperties": False,
    }
    request = ModelRequest("", [user("hi")], stream=stream, longest=7, output_schema=schema)
    async with aclosing(model.respond(request)) as events:
        async for _ in events:
            pass
    body = fake.bodies[0]
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["schema"] == schema
    assert body["response_format"]["json_schema"]["strict"] is True
    assert not {"max_tokens", "max_completion_tokens"} & body.keys()


async def test_malformed_arguments_are_sent_back_in_a_form_that_a_server_accepts(
    fake: FakeOpenAI, model: ProviderModel
) -> None:
    call = ModelMessage((ToolCall("c1", "weather", '{"city'),))
    sent = await sent_for(fake, model, user("?"), call, ToolMessage(ToolResult("c1", "weather", "no")))
    assert '{"city' in json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]).values()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (
            File("image/png", "a.png", PNG),
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        ),
        (File("text/plain", "a.txt", b"two\xffwords"), "[file a.txt]\ntwo\N{REPLACEMENT CHARACTER}words"),
        (File("application/json", None, b"{}"), "[file without a name]\n{}"),
        (
            File("video/mp4", "a.mp4", b"1234"),
            "[file a.mp4, video/mp4, 4 bytes: its content cannot be shown here]",
        ),
        (
            File(None, None, b"1234"),
            "[file without a name, 4 bytes: its content cannot be shown here]",
        ),
        (
            File("image/png", "a.png", url="https://example.com/a.png"),
            "[file a.png, image/png, https://example.com/a.png: its content cannot be shown here]",
        ),
        (
            File("image/png", "a.png", url="data:image/png;base64,AAAA"),
            "[file a.png, image/png: its content cannot be shown here]",
        ),
        (
            File("image/png", "a.png", sha256="00", size=9),
            "[file a.png, image/png, 9 bytes: its content cannot be shown here]",
        ),
        (Data({"größe": 1}), '{"größe": 1}'),
    ],
)
async def test_data_and_files_are_shown_as_far_as_the_model_can_read(
    fake: FakeOpenAI, model: ProviderModel, file: File | Data, content: str | dict[str, Any]
) -> None:
    (sent,) = await sent_for(fake, model, UserMessage((Text("look"), file)))
    if isinstance(content, str):
        assert sent["content"] == f"look\n\n{content}"
    else:
        assert sent["content"] == [{"type": "text", "text": "look"}, content]


async def test_a_thought_goes_back_to_who_thought_it_and_to_nobody_else(
    fake: FakeOpenAI, model: ProviderModel
) -> None:
    fake.behave(Behaviour(thinking="hm", calls=[{"name": "clock", "arguments": "{}", "id": "c1"}]))
    thought = (await reply_of(model, user("time?"))).message
    result = ToolMessage(ToolResult("c1", "clock", "noon"))
    sent = await sent_for(fake, model, user("time?"), thought, result)
    assert sent[1]["reasoning_content"] == "hm"

    kept = thought.parts[0]
    assert isinstance(kept, Thinking)
    assert kept.signature is not None
    signature = kept.signature.replace("127.0.0.1", "elsewhere.example")
    for foreign in (signature, None, "of another kind", "[]", '{"provider": 1}'):
        moved = ModelMessage((Thinking("hm", foreign), *thought.calls))
        sent = await sent_for(fake, model, user("time?"), moved, result)
        assert "reasoning_content" not in sent[1], foreign


# What comes back


async def test_usage_is_what_the_provider_reported(fake: FakeOpenAI, model: ProviderModel) -> None:
    fake.behave(
        Behaviour(text="one two", chunks=2), Behaviour(text="one two"), Behaviour(text="x", usage=False)
    )
    for stream in (True, False):
        usage = (await reply_of(model, user("three words here"), stream=stream)).usage
        assert (usage.input_tokens, usage.output_tokens) == (3, 2)
    assert (await reply_of(model)).usage.output_tokens == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_was_cut_at_its_length_is_an_answer(
    fake: FakeOpenAI, model: ProviderModel, stream: bool
) -> None:
    fake.behave(Behaviour(text="as far as", finish_reason="length"))
    assert (await reply_of(model, stream=stream)).message.text == "as far as"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_filtered_answer_is_refused(fake: FakeOpenAI, model: ProviderModel, stream: bool) -> None:
    fake.behave(Behaviour(text="half of", finish_reason="content_filter"))
    with pytest.raises(ModelRequestError, match="content filter of the provider of 'gpt-4o'"):
        await reply_of(model, stream=stream)


# What goes wrong


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (401, {"code": "invalid_api_key"}, ModelAuthError),
        (403, {}, ModelAuthError),
        (429, {"code": "insufficient_quota"}, ModelAuthError),
        (429, {}, ModelRateLimitError),
        (400, {"code": "context_length_exceeded"}, ContextTooLongError),
        (400, {"code": 400, "type": "exceed_context_size_error"}, ContextTooLongError),
        (400, {}, ModelRequestError),
        (404, {"code": "model_not_found"}, ModelRequestError),
        (422, {}, ModelRequestError),
        (500, {}, ModelUnreachableError),
        (503, {}, ModelUnreachableError),
    ],
)
async def test_a_status_is_the_error_that_says_who_must_act(
    fake: FakeOpenAI, stream: bool, status: int, error: dict[str, Any], expected: type[ModelError]
) -> None:
    body = {"error": {"message": f"{KEY} said hello", **error}}
    fake.behave(*[Behaviour(status=status, body=body)] * 3)
    model = model_at(fake.url, attempts=1)
    with pytest.raises(ModelError) as raised:
        await reply_of(model, stream=stream)
    await model.close()
    assert type(raised.value) is expected
    assert KEY not in str(raised.value)
    assert "said hello" not in str(raised.value)


@pytest.mark.parametrize("as_date", [False, True])
async def test_a_long_wait_is_not_waited_but_told(
    fake: FakeOpenAI, model: ProviderModel, as_date: bool
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=95), usegmt=True)
    retry_after = date if as_date else "90"
    fake.behave(Behaviour(status=429, headers={"Retry-After": retry_after}))
    with pytest.raises(ModelRateLimitError) as raised:
        await reply_of(model)
    assert raised.value.retry_after is not None
    assert 30 < raised.value.retry_after <= 95
    assert len(fake.requests) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_what_may_pass_is_tried_again_before_the_first_byte(
    fake: FakeOpenAI, model: ProviderModel, stream: bool
) -> None:
    fake.behave(Behaviour(status=503), Behaviour(status=429), Behaviour(text="at last"))
    assert (await reply_of(model, stream=stream)).message.text == "at last"
    assert len(fake.requests) == 3


async def test_three_attempts_are_all(fake: FakeOpenAI, model: ProviderModel) -> None:
    fake.behave(*[Behaviour(status=500)] * 5)
    with pytest.raises(ModelUnreachableError):
        await reply_of(model)
    assert len(fake.requests) == 3


@pytest.mark.parametrize(
    "broken",
    [
        Behaviour(text="half of it", chunks=4, drop_after=2),
        Behaviour(text="half of it", chunks=4, end_after=2),
        Behaviour(text="half of it", chunks=4, error_after=2, body={"error": {"message": "oh"}}),
        Behaviour(
            text="half of it",
            chunks=4,
            error_after=2,
            body={"error": {"message": "oh", "code": "server_error"}},
        ),
    ],
    ids=["reset", "ended", "error", "coded error"],
)
async def test_an_answer_that_breaks_off_is_an_error_and_is_not_asked_for_again(
    fake: FakeOpenAI, model: ProviderModel, broken: Behaviour
) -> None:
    fake.behave(broken)
    heard: list[ModelEvent] = []

    async def listen() -> None:
        async for event in model.respond(ModelRequest("", [user("hello")])):
            heard.append(event)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(ModelUnreachableError):
        await listen()
    assert "".join(event.text for event in heard if isinstance(event, TextDelta)) == "half of it"[:5]
    assert len(fake.requests) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_silence_before_the_answer_is_given_up_once(fake: FakeOpenAI, stream: bool) -> None:
    fake.behave(Behaviour(hold=True))
    model = model_at(fake.url, silence=0.2)
    with pytest.raises(ModelUnreachableError, match="did not answer in time"):
        await reply_of(model, stream=stream)
    await fake.until(lambda: fake.disconnects == 1)
    await model.close()
    assert len(fake.requests) == 1


async def test_silence_in_the_middle_of_an_answer_is_given_up(fake: FakeOpenAI) -> None:
    fake.behave(Behaviour(text="half of it", chunks=4, hold_after=2))
    model = model_at(fake.url, silence=0.2)
    with pytest.raises(ModelUnreachableError, match="did not answer in time"):
        await reply_of(model)
    await fake.until(lambda: fake.disconnects == 1)
    await model.close()


async def test_nobody_there_is_unreachable_and_the_error_says_where_the_address_came_from() -> None:
    async with FakeOpenAI() as fake:
        url = fake.url
    at_host = LlmEntry("openai", "gpt-4o", host=url)
    by_variable = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url}
    for choice, source in [
        (resolve(at_host, {}), "host in its entry under llms"),
        (resolve("gpt-4o", by_variable), "the environment variable OPENAI_BASE_URL"),
    ]:
        model = openai_model(choice)
        model._retry_pauses = ()
        with pytest.raises(ModelUnreachableError) as raised:
            await reply_of(model)
        assert str(raised.value) == (
            f"no connection to the provider of 'gpt-4o', or it was lost; check {source}, or try again later"
        )
        await model.close()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("body", ["<html>welcome</html>", {"unexpected": True}, {"choices": []}, []])
async def test_an_answer_of_another_protocol_is_an_error(
    fake: FakeOpenAI, model: ProviderModel, stream: bool, body: Any
) -> None:
    fake.behave(*[Behaviour(body=body)] * 3)
    with pytest.raises(ModelError) as raised:
        await reply_of(model, stream=stream)
    assert "welcome" not in str(raised.value)


# How it is opened and closed


async def test_what_hinders_opening_is_told_to_each_request_and_to_no_warm_up() -> None:
    def connect() -> Connection:
        raise ModelUnavailableError("not today")

    model = ProviderModel(connect, name="m")
    await model.warm_up()
    for _ in range(2):
        with pytest.raises(ModelUnavailableError, match="not today"):
            await reply_of(model)


async def test_a_missing_package_is_named() -> None:
    def connect() -> Connection:
        raise ModuleNotFoundError("no such thing", name="nosuch")

    with pytest.raises(ModelUnavailableError, match=r"not installed here \(nosuch\)"):
        await reply_of(ProviderModel(connect, name="m"))


async def test_requests_side_by_side_open_one_connection(fake: FakeOpenAI) -> None:
    opened = 0

    def connect() -> Connection:
        nonlocal opened
        opened += 1
        return model_at(fake.url)._connect()

    model = ProviderModel(connect, name="m")
    await asyncio.gather(model.warm_up(), *(reply_of(model) for _ in range(5)))
    await model.close()
    assert opened == 1


async def test_a_closed_model_opens_again_when_asked(fake: FakeOpenAI, model: ProviderModel) -> None:
    await reply_of(model)
    await model.close()
    assert (await reply_of(model)).message.text == "Got it: hello"


async def test_a_choice_without_a_key_sends_a_placeholder(fake: FakeOpenAI) -> None:
    choice = ModelChoice("openai", "m", base_url=fake.url, context_window=99)
    model = openai_model(choice)
    await reply_of(model)
    await model.close()
    assert fake.requests[0].headers["authorization"] == "Bearer none"
    assert (model.name, model.context_window) == ("m", 99)


def test_importing_it_imports_nothing_heavy() -> None:
    program = "import sys, hector.llm.provider, hector.llm.resolve, hector.llm.scripted; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert not {"pydantic_ai", "openai", "httpx2", "httpx", "pydantic"} & set(loaded.split())
