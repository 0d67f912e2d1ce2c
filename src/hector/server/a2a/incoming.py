"""From the JSON of `message:send` to the domain, in any dialect; faults name the caller's own fields."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from hector.domain.errors import InvalidError
from hector.domain.ids import check_session_id
from hector.domain.messages import Data, File, JsonValue, Metadata, Text, UserMessage, UserPart
from hector.domain.push import PushConfig
from hector.server.a2a.dialect import Dialect, spoken
from hector.server.a2a.fields import Fields, check_depth, shown
from hector.server.a2a.push import read_config
from hector.server.a2a.wire import WRAPPED

_USER_ROLES = (1, "user", "ROLE_USER")
_UNSAID_ROLES = (None, 0, "ROLE_UNSPECIFIED")
_URL_SAFE = str.maketrans("-_", "+/")
_WORD = re.compile(r"[A-Za-z_]{1,32}")


@dataclass(frozen=True, slots=True)
class SendRequest:
    dialect: Dialect
    message: UserMessage
    place: str
    """Where the message stands in the body: `message`, or `request`."""
    message_id: str | None = None
    context_id: str | None = None
    task_id: str | None = None
    at_once: bool = False
    """Answer with the task as it stands, and don't wait for its end."""
    history: int = 0
    """How many of the task's newest messages the answer holds."""
    push: PushConfig | None = None
    """To be made with the task."""
    push_place: str = ""
    """Where that stands in the body."""

    def own_words(self, field: str) -> str:
        """A domain field as this caller wrote it: `message.parts[0].text` -> `message.content[0].text`."""
        if field.startswith("message.parts") and self.dialect is Dialect.V03_PROTO:
            field = field.replace("parts", "content", 1)
        elif field in {"context_id", "message_id", "task_id"}:
            field = f"message.{field}"
        return self.place + field.removeprefix("message") if field.startswith("message") else field


def read_send(
    body: Mapping[str, JsonValue], *, version: Dialect | None, idempotency_key: str | None = None
) -> SendRequest:
    """`version` is the one that the caller named. Raises `InvalidError`."""
    fields = Fields(body, "")
    place = "request" if "request" in body and "message" not in body else "message"
    said = fields.object(place)
    if said is None:
        raise InvalidError("message", 'is missing; send {"message": {"role": "user", "parts": [...]}}')
    dialect = spoken(version, said.values)
    message_id = _read_message_id(said, idempotency_key)
    if version is not None and message_id is None:
        raise InvalidError(said.path("messageId"), f"is missing; A2A {version.value[:3]} requires it")
    _check_role(said, required=version is not None)
    # Protobuf's writers leave out what is false, so of a 0.3 client the absent `blocking` is a wish.
    unsaid_is_false = version is not None and dialect is Dialect.V03_PROTO
    at_once, history = _read_configuration(fields, unsaid_is_false=unsaid_is_false)
    push = _push_config(fields)
    return SendRequest(
        dialect,
        UserMessage(
            tuple(_read_parts(said, dialect, named=version is not None)),
            said.metadata(),
            said.texts("extensions"),
        ),
        place,
        message_id,
        _read_context_id(said),
        said.filled("taskId"),
        at_once,
        history,
        read_config(push, dialect) if push else None,
        push.place if push else "",
    )


def _read_configuration(fields: Fields, *, unsaid_is_false: bool) -> tuple[bool, int]:
    wishes = fields.object("configuration")
    if wishes is None:
        return False, 0
    # Looked at and no more: an agent says what it says, as its card tells.
    wishes.texts("acceptedOutputModes")
    blocking = wishes.flag("blocking")
    leaves = blocking is False or (blocking is None and unsaid_is_false)
    return wishes.flag("returnImmediately") is True or leaves, wishes.count("historyLength") or 0


def _push_config(fields: Fields) -> Fields | None:
    """Under the name that its version of A2A has for it; an empty one counts as none."""
    wishes = fields.object("configuration")
    for name in ("taskPushNotificationConfig", "pushNotificationConfig", "pushNotification"):
        if wishes is not None and wishes.raw(name):
            return wishes.object(name)
    return None


def _read_message_id(said: Fields, idempotency_key: str | None) -> str | None:
    """From the body or the header; neither wins where they differ, for a repeat is known by it."""
    message_id = said.filled("messageId")
    if message_id and idempotency_key and message_id != idempotency_key:
        raise InvalidError(
            said.path("messageId"), "differs from the header Idempotency-Key; send one of them, or one value"
        )
    return message_id or idempotency_key or None


def _read_context_id(said: Fields) -> str | None:
    """An empty one is refused: taken for absent, each message of a client's would begin a session anew."""
    context_id = said.text("contextId")
    return None if context_id is None else check_session_id(context_id, said.path("contextId"))


def _check_role(said: Fields, *, required: bool) -> None:
    role = said.raw("role")
    unsaid = role in _UNSAID_ROLES and not isinstance(role, bool)
    if (unsaid and not required) or (role in _USER_ROLES and not isinstance(role, bool)):
        return
    if isinstance(role, str) and _WORD.fullmatch(role):
        found = repr(role)
    else:
        found = "nothing" if role is None else shown(role)
    raise InvalidError(said.path("role"), f'wanted "ROLE_USER", "user" or 1, found {found}')


def _read_parts(said: Fields, dialect: Dialect, *, named: bool) -> list[UserPart]:
    """`named`: the caller named a version, which has one of the two fields alone."""
    content, parts = said.raw("content"), said.raw("parts")
    if content is not None and parts is not None:
        raise InvalidError(said.place, "has both content and parts; send one")
    if content is None and parts is None and not named:
        raise InvalidError(
            said.place, 'has neither content nor parts; wanted one of them, an array like [{"text": "..."}]'
        )
    name = "content" if dialect is Dialect.V03_PROTO else "parts"
    if said.raw(name) is None:
        raise InvalidError(said.path(name), 'is missing; wanted an array like [{"text": "..."}]')
    read = _READERS[dialect]
    found = [read(part) for part in said.objects(name)]
    if found and all(isinstance(part, Text) and not part.text.strip() for part in found):
        raise InvalidError(
            said.path(name), "says nothing; wanted a text that is more than spaces, or a file or data"
        )
    return found


def _read_v1(part: Fields) -> UserPart:
    metadata = part.metadata()
    media_type, name = part.filled("mediaType"), part.filled("filename")
    if "data" in part.values and part.values["data"] is None:
        # In 1.0 data is any JSON value, so null is one.
        return Data(None, media_type, metadata)
    match part.only(("text", "raw", "url", "data")):
        case "text":
            return Text(part.text("text") or "", metadata)
        case "raw":
            return File(media_type, name, _read_base64(part, "raw"), None, metadata)
        case "url":
            return File(media_type, name, None, part.text("url"), metadata)
        case _:
            return Data(_read_data(part), media_type, metadata)


def _read_v03_json(part: Fields) -> UserPart:
    kind = part.text("kind")
    metadata = part.metadata()
    match kind:
        case "text":
            text = part.text("text")
            if text is None:
                raise InvalidError(part.path("text"), "is missing; wanted a string")
            return Text(text, metadata)
        case "file":
            return _read_v03_file(part, ("bytes", "uri"), metadata)
        case "data":
            if part.object("data") is None:
                raise InvalidError(part.path("data"), "is missing; wanted an object")
            return _read_v03_data(part, metadata)
        case _:
            found = "nothing" if kind is None else repr(kind)
            raise InvalidError(part.path("kind"), f'wanted "text", "file" or "data", found {found}')


def _read_v03_proto(part: Fields) -> UserPart:
    metadata = part.metadata()
    match part.only(("text", "file", "data")):
        case "text":
            return Text(part.text("text") or "", metadata)
        case "file":
            return _read_v03_file(part, ("fileWithBytes", "fileWithUri"), metadata)
        case _:
            holder = part.object("data")
            assert holder, "it was found a moment ago"
            if holder.object("data") is None:
                raise InvalidError(holder.path("data"), "is missing; wanted an object")
            return _read_v03_data(holder, metadata)


_READERS = {Dialect.V1: _read_v1, Dialect.V03_JSON: _read_v03_json, Dialect.V03_PROTO: _read_v03_proto}


def _read_v03_file(part: Fields, names: tuple[str, str], metadata: Metadata | None) -> File:
    file = part.object("file")
    if file is None:
        raise InvalidError(part.path("file"), f"is missing; wanted an object with {' or '.join(names)}")
    media_type, name = file.filled("mimeType"), file.filled("name")
    if file.only(names) == names[0]:
        return File(media_type, name, _read_base64(file, names[0]), None, metadata)
    return File(media_type, name, None, file.text(names[1]), metadata)


def _read_v03_data(holder: Fields, metadata: Metadata | None) -> Data:
    """An object, or what stands in it where a mark says that it is wrapped, as a2a-sdk does and as we do."""
    value = _read_data(holder)
    if metadata and metadata.get(WRAPPED) is True and isinstance(value, dict) and list(value) == ["value"]:
        others = {name: each for name, each in metadata.items() if name != WRAPPED}
        return Data(value["value"], None, others or None)
    return Data(value, None, metadata)


def _read_data(part: Fields) -> JsonValue:
    value = part.raw("data")
    check_depth(value, part.path("data"))
    return value


def _read_base64(part: Fields, name: str) -> bytes:
    """The usual alphabet or the URL-safe one, padded or not, as protobuf reads it."""
    text = (part.text(name) or "").translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidError(part.path(name), "is not base64") from None
