"""How stored messages are shown."""

from datetime import UTC, datetime

import pytest

from hector.cli.sessions import aligned, session_json
from hector.cli.transcript import message_json, message_text
from hector.domain.ids import SessionKey
from hector.domain.messages import (
    Data,
    File,
    ModelMessage,
    ModelPart,
    StoredMessage,
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from hector.domain.sessions import Session
from hector.server.http import browse

AT = datetime(2026, 11, 22, 18, 0, 5, tzinfo=UTC)

PARTS: list[tuple[ModelPart, str]] = [
    (Text("two\nlines"), "  two\n  lines"),
    (Data({"a": "ü"}), '  {"a": "ü"}'),
    (File("image/png", "cat.png", b"12345"), "  [file cat.png, image/png, 5 bytes]"),
    (File("image/png", sha256="ab", size=9), "  [file image/png, 9 bytes]"),
    (File(url="https://example.org/x"), "  [file https://example.org/x]"),
    (ToolCall("1", "clock", '{"zone": "UTC"}'), '  calls clock {"zone": "UTC"}'),
]


@pytest.mark.parametrize(("part", "text"), PARTS)
def test_every_kind_of_part_is_shown(part: ModelPart, text: str) -> None:
    stored = StoredMessage(ModelMessage((part,)), 3, "t", 9)
    assert message_text(stored) == f"#3 · agent · 9 tokens\n{text}"


@pytest.mark.parametrize("part", [part for part, _ in PARTS])
def test_json_is_what_the_server_gives(part: ModelPart) -> None:
    stored = StoredMessage(ModelMessage((Thinking("hm"), part)), 3, "t", 9, "m", "crashed", AT)
    assert message_json(stored) == browse._message(stored) | {"tokens": 9}


def test_json_of_a_session_and_of_a_tool_is_what_the_server_gives() -> None:
    session = Session(SessionKey("a", "u", "s"), 3, AT, AT, "t", 1)
    assert session_json(session) == browse._session(session)
    stored = StoredMessage(ToolMessage(ToolResult("1", "clock", "noon")), 4, "t", 1)
    assert message_json(stored) == browse._message(stored) | {"tokens": 1}


def test_what_a_model_thought_is_not_shown() -> None:
    stored = StoredMessage(ModelMessage((Thinking("hm"), Text("Hi"))), 3, "t", 9)
    assert message_text(stored) == "#3 · agent · 9 tokens\n  Hi"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (ToolResult("1", "clock", "noon"), "  clock gave: noon"),
        (ToolResult("1", "clock", "no such zone", is_error=True), "  clock failed: no such zone"),
    ],
)
def test_a_tools_result_names_the_tool(result: ToolResult, text: str) -> None:
    stored = StoredMessage(ToolMessage(result), 4, "t", 1)
    assert message_text(stored) == f"#4 · tool · 1 token\n{text}"


def test_a_message_without_an_answer_is_marked() -> None:
    stored = StoredMessage(UserMessage((Text("hi"),)), 1, "t", 5, "m", "crashed", AT)
    assert message_text(stored) == (
        "#1 · user · 2026-11-22 18:00:05Z · 5 tokens\n  hi\n  [not answered: crashed]"
    )


def test_a_message_that_waits_has_no_number_yet() -> None:
    assert message_text(StoredMessage(UserMessage((Text("hi"),)), None, "t")).startswith("waiting · user")


def test_columns_are_aligned_and_empty_ones_left_out() -> None:
    assert aligned([("1 message", "", "work"), ("12 messages", "", "x")]) == [
        "1 message    work",
        "12 messages  x",
    ]
    assert aligned([]) == []
