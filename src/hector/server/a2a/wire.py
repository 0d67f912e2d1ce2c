"""From the domain to A2A's JSON, in the three dialects: dicts ready for `json`.

By hand, for a2a-sdk's types cost more than a turn does; tests/server/test_wire.py proves that both agree.
"""

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias, assert_never

from hector.domain.ids import SessionKey
from hector.domain.messages import (
    Data,
    File,
    JsonValue,
    Metadata,
    ModelMessage,
    Part,
    StoredMessage,
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from hector.domain.turns import Turn, TurnState
from hector.server.a2a.dialect import Dialect

Json: TypeAlias = dict[str, JsonValue]

WRAPPED = "data_part_compat"
"""In a part's metadata, of A2A 0.3: its data is `{"value": ...}` around what is no object."""

_PROTO_STATES = {state: f"TASK_STATE_{state.name}" for state in TurnState}
_STATES: Mapping[Dialect, Mapping[TurnState, str]] = {
    Dialect.V1: _PROTO_STATES,
    Dialect.V03_PROTO: _PROTO_STATES | {TurnState.CANCELED: "TASK_STATE_CANCELLED"},
    Dialect.V03_JSON: {state: state.value.replace("_", "-") for state in TurnState},
}


def task(dialect: Dialect, turn: Turn, *, history: int = 0) -> Json:
    """A turn with its own messages, or with the last of them where no history is wanted."""
    parts = reply_parts(turn)
    return task_of(
        dialect,
        turn.key,
        turn.id,
        status_of(dialect, turn),
        artifacts=[artifact(dialect, turn.id, parts)] if parts and not turn.state.paused else None,
        history=_history(dialect, turn, history) if history else None,
        metadata=why(turn),
    )


def task_of(
    dialect: Dialect,
    key: SessionKey,
    turn_id: str,
    status: Json,
    *,
    artifacts: list[JsonValue] | None = None,
    history: list[JsonValue] | None = None,
    metadata: Json | None = None,
) -> Json:
    made: Json = {"id": turn_id, "contextId": key.session_id, "status": status}
    if artifacts:
        made["artifacts"] = artifacts
    if history:
        made["history"] = history
    if metadata:
        made["metadata"] = metadata
    if dialect is Dialect.V03_JSON:
        made["kind"] = "task"
    return made


def status_of(dialect: Dialect, turn: Turn) -> Json:
    """With a message where the state alone does not say enough: a question, or what went wrong."""
    parts: Sequence[Part] = ()
    if turn.state.paused:
        parts = reply_parts(turn)
    elif turn.state is not TurnState.COMPLETED and (why := turn.error or turn.reason):
        parts = (Text(why),)
    made = status(dialect, turn.state, turn.ended_at or turn.started_at or turn.created_at)
    if parts:
        made["message"] = message(dialect, turn.key, turn.id, f"{turn.id}.status", parts)
    return made


def status(dialect: Dialect, state: TurnState, at: datetime | None = None) -> Json:
    return {"state": _STATES[dialect][state], "timestamp": timestamp(at or datetime.now(UTC))}


def status_update(
    dialect: Dialect,
    key: SessionKey,
    turn_id: str,
    status: Json,
    *,
    final: bool,
    metadata: Json | None = None,
) -> Json:
    made: Json = {"taskId": turn_id, "contextId": key.session_id, "status": status}
    if metadata:
        made["metadata"] = metadata
    if dialect is Dialect.V03_JSON:
        made |= {"kind": "status-update", "final": final}
    elif dialect is Dialect.V03_PROTO and final:
        made["final"] = True
    return {"statusUpdate": made}


def artifact_update(
    dialect: Dialect, key: SessionKey, turn_id: str, parts: Sequence[Part], *, append: bool, last: bool
) -> Json:
    """False is left out, as protobuf's JSON leaves it out."""
    made: Json = {
        "taskId": turn_id,
        "contextId": key.session_id,
        "artifact": artifact(dialect, turn_id, parts),
    }
    if append:
        made["append"] = True
    if last:
        made["lastChunk"] = True
    if dialect is Dialect.V03_JSON:
        made["kind"] = "artifact-update"
    return {"artifactUpdate": made}


def artifact(dialect: Dialect, turn_id: str, parts: Sequence[Part]) -> Json:
    """The reply; its id derives from the task's, so that every look at it finds the same."""
    return {
        "artifactId": f"reply-{turn_id}",
        "name": "reply",
        "parts": [part_json(dialect, part) for part in parts],
    }


def message(
    dialect: Dialect,
    key: SessionKey,
    turn_id: str,
    message_id: str,
    parts: Sequence[Part],
    *,
    user: bool = False,
    metadata: Metadata | None = None,
    extensions: Sequence[str] = (),
) -> Json:
    made: Json = {"messageId": message_id, "contextId": key.session_id, "taskId": turn_id}
    said: list[JsonValue] = [part_json(dialect, part) for part in parts]
    match dialect:
        case Dialect.V1:
            made |= {"role": "ROLE_USER" if user else "ROLE_AGENT", "parts": said}
        case Dialect.V03_PROTO:
            made |= {"role": "ROLE_USER" if user else "ROLE_AGENT", "content": said}
        case Dialect.V03_JSON:
            made |= {"role": "user" if user else "agent", "parts": said, "kind": "message"}
        case _:
            assert_never(dialect)
    if metadata:
        made["metadata"] = dict(metadata)
    if extensions:
        made["extensions"] = [*extensions]
    return made


def reply_parts(turn: Turn) -> Sequence[Part]:
    """What the agent said at the end, without what only the model may see; empty if it said nothing."""
    last = turn.last
    # A canceled turn ends with a question, if with anything, and that is no reply.
    if not isinstance(last, ModelMessage) or last.calls or turn.state is TurnState.CANCELED:
        return ()
    shown = visible(last.parts)
    return shown if any(part != Text("") for part in shown) else ()


def visible(parts: Sequence[Part]) -> Sequence[Part]:
    return [part for part in parts if isinstance(part, Text | Data | File)]


def part_json(dialect: Dialect, part: Part) -> Json:
    """A `Text`, `Data` or `File`."""
    match part:
        case Text(metadata=None) if dialect is not Dialect.V03_JSON:
            return {"text": part.text}
        case Text() | Data() | File():
            made = _PART_WRITERS[dialect](part)
        case Thinking() | ToolCall() | ToolResult():
            raise ValueError(f"A2A has no {type(part).__name__} part")
        case _:
            assert_never(part)
    if part.metadata:
        # A 0.3 data part that is no object has got a mark of its own.
        made["metadata"] = dict(part.metadata) | (made.get("metadata") or {})  # type: ignore[operator]
    return made


def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC, with milliseconds as A2A wants them."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _v1_part(part: Text | Data | File) -> Json:
    match part:
        case Text():
            return {"text": part.text}
        case Data():
            return filled({"data": part.value}, mediaType=part.media_type)
        case File():
            content: Json = {"url": part.url} if part.url is not None else {"raw": _base64(part)}
            return filled(content, filename=part.name, mediaType=part.media_type)
        case _:
            assert_never(part)


def _v03_proto_part(part: Text | Data | File) -> Json:
    match part:
        case Text():
            return {"text": part.text}
        case Data():
            value, mark = _v03_data(part)
            return {"data": {"data": value}} | mark
        case File():
            held: Json = (
                {"fileWithUri": part.url} if part.url is not None else {"fileWithBytes": _base64(part)}
            )
            return {"file": filled(held, mimeType=part.media_type, name=part.name)}
        case _:
            assert_never(part)


def _v03_json_part(part: Text | Data | File) -> Json:
    match part:
        case Text():
            return {"kind": "text", "text": part.text}
        case Data():
            value, mark = _v03_data(part)
            return {"kind": "data", "data": value} | mark
        case File():
            held: Json = {"uri": part.url} if part.url is not None else {"bytes": _base64(part)}
            return {"kind": "file", "file": filled(held, mimeType=part.media_type, name=part.name)}
        case _:
            assert_never(part)


_PART_WRITERS = {
    Dialect.V1: _v1_part,
    Dialect.V03_PROTO: _v03_proto_part,
    Dialect.V03_JSON: _v03_json_part,
}


def _v03_data(part: Data) -> tuple[JsonValue, Json]:
    """In 0.3 data is an object; a2a-sdk wraps and marks other values in this way."""
    if isinstance(part.value, dict):
        return part.value, {}
    return {"value": part.value}, {"metadata": {WRAPPED: True}}


def filled(made: Json, **optional: str | None) -> Json:
    return made | {name: value for name, value in optional.items() if value}


def _base64(part: File) -> str:
    return base64.b64encode(part.data or b"").decode()


def _history(dialect: Dialect, turn: Turn, newest: int) -> list[JsonValue]:
    said = [stored for stored in turn.messages if _is_said(stored)]
    return [_history_message(dialect, turn, stored) for stored in said[-newest:]]


def _is_said(stored: StoredMessage) -> bool:
    return not isinstance(stored.message, ToolMessage) and bool(visible(stored.message.parts))


def _history_message(dialect: Dialect, turn: Turn, stored: StoredMessage) -> Json:
    # What the agent said has no message id; its place in the session is one.
    message_id = stored.message_id or f"{turn.id}.{stored.seq}"
    said = stored.message
    user = said if isinstance(said, UserMessage) else None
    return message(
        dialect,
        turn.key,
        turn.id,
        message_id,
        visible(said.parts),
        user=user is not None,
        metadata=user.metadata if user else None,
        extensions=user.extensions if user else (),
    )


def why(turn: Turn) -> Json | None:
    """For programs: why a turn has no answer, and whether the same message may be sent again."""
    if turn.state is TurnState.COMPLETED or turn.reason is None:
        return None
    return {"reason": turn.reason, "retryable": turn.retryable}
