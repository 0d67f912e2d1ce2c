"""Our JSON is what a2a-sdk's own types make of it, and they understand all of it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2 as proto_03
from a2a.compat.v0_3 import conversions, proto_utils
from a2a.compat.v0_3 import types as types_03
from a2a.types import a2a_pb2 as proto_10
from google.protobuf.json_format import MessageToDict, ParseDict
from inline_snapshot import snapshot

from hector.domain.ids import SessionKey
from hector.domain.messages import (
    Data,
    File,
    Message,
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
from hector.domain.turns import Turn, TurnState
from hector.server.a2a import wire
from hector.server.a2a.dialect import Dialect

KEY = SessionKey("a", "u", "s")
ENDED = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
ASKED = UserMessage((Text("hi"),), {"k": [1.5, {"x": None}]})


def turn(
    *said: Message,
    state: TurnState = TurnState.COMPLETED,
    reason: str | None = None,
    error: str | None = None,
) -> Turn:
    stored = tuple(
        StoredMessage(message, seq, "t", message_id=f"m{seq}" if isinstance(message, UserMessage) else None)
        for seq, message in enumerate(said, 1)
    )
    return Turn("t", KEY, state, reason, error, messages=stored, ended_at=ENDED)


def answered(*parts: ModelPart) -> Turn:
    return turn(ASKED, ModelMessage(parts))


TURNS = {
    "text": answered(Text("Grüße 🎉")),
    "text in parts": answered(Text("one "), Thinking("hm"), Text("two", {"n": True})),
    "data": answered(Data({"a": [1.5, "x", None]}, "application/json", {"m": "x"})),
    "file": answered(File("image/png", "x.png", b"\x00\xff\xfe")),
    "url": answered(File("text/html", None, None, "https://example.org/x")),
    "silent": answered(Text("")),
    "after a tool": turn(
        ASKED,
        ModelMessage((Text("let me see"), ToolCall("c", "clock", "{}"))),
        ToolMessage(ToolResult("c", "clock", "noon")),
        ModelMessage((Text("noon"),)),
    ),
    "failed": turn(ASKED, state=TurnState.FAILED, reason="crashed", error="the server crashed"),
    "canceled": turn(ASKED, state=TurnState.CANCELED, reason="canceled"),
    "paused": turn(
        ASKED, ModelMessage((Text("which one?"),)), state=TurnState.INPUT_REQUIRED, reason="waiting for input"
    ),
    "waiting": turn(ASKED, state=TurnState.SUBMITTED),
}
each_turn = pytest.mark.parametrize("which", TURNS)
each_state = pytest.mark.parametrize("state", TurnState)


@each_turn
def test_a_task_of_1_0_is_what_the_sdk_writes(which: str) -> None:
    ours = wire.task(Dialect.V1, TURNS[which], history=9)
    assert MessageToDict(ParseDict(ours, proto_10.Task())) == ours


@each_turn
def test_a_task_of_0_3_over_http_is_what_the_sdk_writes(which: str) -> None:
    ours = wire.task(Dialect.V03_PROTO, TURNS[which], history=9)
    assert MessageToDict(ParseDict(ours, proto_03.Task())) == ours


@each_turn
def test_a_task_of_0_3_is_what_the_sdk_writes(which: str) -> None:
    ours = wire.task(Dialect.V03_JSON, TURNS[which], history=9)
    assert _dumped(types_03.Task.model_validate(ours)) == ours


@each_turn
def test_the_dialects_say_the_same(which: str) -> None:
    core = ParseDict(wire.task(Dialect.V1, TURNS[which], history=9), proto_10.Task())
    compat = conversions.to_compat_task(core)
    assert _dumped(compat) == wire.task(Dialect.V03_JSON, TURNS[which], history=9)
    if which != "file":  # which the sdk encodes twice on this way
        over_http = MessageToDict(proto_utils.ToProto.task(compat))
        assert over_http == wire.task(Dialect.V03_PROTO, TURNS[which], history=9)


def test_data_of_0_3_that_is_no_object_is_wrapped_as_the_sdk_wraps_it() -> None:
    core = ParseDict({"data": [1.5, 2.5], "metadata": {"k": "v"}}, proto_10.Part())
    part = Data([1.5, 2.5], None, {"k": "v"})
    assert wire.part_json(Dialect.V03_JSON, part) == _dumped(conversions.to_compat_part(core))


@each_state
def test_each_state_has_the_sdks_name(state: TurnState) -> None:
    said = {dialect: wire.status(dialect, state, ENDED) for dialect in Dialect}
    ParseDict(said[Dialect.V1], proto_10.TaskStatus())
    ParseDict(said[Dialect.V03_PROTO], proto_03.TaskStatus())
    assert types_03.TaskState(said[Dialect.V03_JSON]["state"])


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("parts", [[Text("x")], [Text("")], [Data({"a": "b"})]])
def test_updates_are_what_the_sdk_writes(parts: Sequence[Text | Data], final: bool) -> None:
    for dialect, message in (
        (Dialect.V1, proto_10.StreamResponse),
        (Dialect.V03_PROTO, proto_03.StreamResponse),
    ):
        for ours in _updates(dialect, parts, final):
            assert MessageToDict(ParseDict(ours, message())) == ours
    state, piece = _updates(Dialect.V03_JSON, parts, final)
    assert (
        _dumped(types_03.TaskStatusUpdateEvent.model_validate(state["statusUpdate"])) == state["statusUpdate"]
    )
    assert (
        _dumped(types_03.TaskArtifactUpdateEvent.model_validate(piece["artifactUpdate"]))
        == piece["artifactUpdate"]
    )


def test_history_holds_the_newest_of_what_was_said() -> None:
    found: Any = wire.task(Dialect.V1, TURNS["after a tool"], history=2)["history"]
    assert [message["parts"] for message in found] == [[{"text": "let me see"}], [{"text": "noon"}]]
    assert [message["messageId"] for message in found] == ["t.2", "t.4"]
    assert "history" not in wire.task(Dialect.V1, TURNS["after a tool"])


def test_what_a_model_thinks_is_never_shown() -> None:
    for dialect in Dialect:
        assert "hm" not in str(wire.task(dialect, TURNS["text in parts"], history=9))


def test_a_task_in_the_words_of_the_quick_start() -> None:
    assert wire.task(Dialect.V03_PROTO, TURNS["text"]) == snapshot(
        {
            "id": "t",
            "contextId": "s",
            "status": {"state": "TASK_STATE_COMPLETED", "timestamp": "2026-01-02T03:04:05.678Z"},
            "artifacts": [{"artifactId": "reply-t", "name": "reply", "parts": [{"text": "Grüße 🎉"}]}],
        }
    )


def test_a_question_and_a_failure_are_told_in_the_status() -> None:
    assert wire.task(Dialect.V03_JSON, TURNS["paused"]) == snapshot(
        {
            "id": "t",
            "contextId": "s",
            "status": {
                "state": "input-required",
                "timestamp": "2026-01-02T03:04:05.678Z",
                "message": {
                    "messageId": "t.status",
                    "contextId": "s",
                    "taskId": "t",
                    "role": "agent",
                    "parts": [{"kind": "text", "text": "which one?"}],
                    "kind": "message",
                },
            },
            "metadata": {"reason": "waiting for input", "retryable": False},
            "kind": "task",
        }
    )
    assert wire.task(Dialect.V1, TURNS["failed"]) == snapshot(
        {
            "id": "t",
            "contextId": "s",
            "status": {
                "state": "TASK_STATE_FAILED",
                "timestamp": "2026-01-02T03:04:05.678Z",
                "message": {
                    "messageId": "t.status",
                    "contextId": "s",
                    "taskId": "t",
                    "role": "ROLE_AGENT",
                    "parts": [{"text": "the server crashed"}],
                },
            },
            "metadata": {"reason": "crashed", "retryable": False},
        }
    )


def _updates(dialect: Dialect, parts: Sequence[Text | Data], final: bool) -> list[Any]:
    status = wire.status(dialect, TurnState.COMPLETED, ENDED)
    return [
        wire.status_update(dialect, KEY, "t", status, final=final, metadata={"k": "v"}),
        wire.artifact_update(dialect, KEY, "t", parts, append=final, last=final),
    ]


def _dumped(model: Any) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
