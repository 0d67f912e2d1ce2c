import pytest
from pydantic_ai import messages as wire

from hector.domain.messages import (
    Data,
    File,
    ModelMessage,
    Text,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from hector.llm.openai import connect_openai
from hector.llm.resolve import OPENAI_URL
from hector.llm.translate import messages_for, reply_of

MODEL = connect_openai("gpt-4o", base_url=OPENAI_URL).model


def test_the_results_of_parallel_calls_and_the_user_after_them_are_one_message() -> None:
    calls, results = messages_for(
        [
            ModelMessage((ToolCall("c1", "a", "{}"), ToolCall("c2", "b", "{}"))),
            ToolMessage(ToolResult("c1", "a", "1")),
            ToolMessage(ToolResult("c2", "b", "2", is_error=True)),
            UserMessage((Text("and?"),)),
        ],
        MODEL,
    )
    assert [type(part) for part in calls.parts] == [wire.ToolCallPart] * 2
    first, second, user = results.parts
    assert isinstance(first, wire.ToolReturnPart)
    assert isinstance(second, wire.ToolReturnPart)
    assert (first.outcome, second.outcome) == ("success", "failed")
    assert isinstance(user, wire.UserPromptPart)


@pytest.mark.parametrize(
    ("url", "media_type", "fetched"),
    [
        ("https://example.com/a.png", "image/png", True),
        ("https://example.com/a", "image/png", True),
        ("http://example.com/a.png", "image/png", False),
        ("https://example.com/a.pdf", "application/pdf", False),
        ("https://example.com/a.png", None, False),
        ("data:image/png;base64,AAAA", "image/png", False),
    ],
)
def test_the_address_of_an_image_is_handed_to_openai_and_never_fetched_here(
    url: str, media_type: str | None, fetched: bool
) -> None:
    (sent,) = messages_for([UserMessage((File(media_type, url=url),))], MODEL)
    (part,) = sent.parts
    assert isinstance(part, wire.UserPromptPart)
    if fetched:
        assert isinstance(part.content, list)
        (image,) = part.content
        assert isinstance(image, wire.ImageUrl)
        assert (image.url, image.force_download) == (url, False)
    else:
        assert isinstance(part.content, str)


def test_data_and_files_of_the_model_are_shown_to_it_as_text() -> None:
    (sent,) = messages_for([ModelMessage((Data([1]), File("image/png", "a.png", b"1")))], MODEL)
    assert [part.content for part in sent.parts if isinstance(part, wire.TextPart)] == [
        "[1]",
        "[file a.png, image/png, 1 bytes: its content cannot be shown here]",
    ]


@pytest.mark.parametrize(
    ("args", "arguments"),
    [(None, "{}"), ("", "{}"), ({"ü": 1}, '{"ü": 1}'), ('{"a":', '{"a":'), (" [] ", " [] ")],
)
def test_arguments_are_text_whatever_the_provider_gives(
    args: str | dict[str, int] | None, arguments: str
) -> None:
    (call,) = reply_of(wire.ModelResponse([wire.ToolCallPart("t", args, "c")])).message.calls
    assert call == ToolCall("c", "t", arguments)


def test_what_hector_asks_for_never_is_left_out_of_a_reply() -> None:
    parts: list[wire.ModelResponsePart] = [
        wire.TextPart(""),
        wire.FilePart(wire.BinaryContent(b"", media_type="image/png")),
        wire.TextPart("x"),
    ]
    assert reply_of(wire.ModelResponse(parts)).message.parts == (Text("x"),)
