"""The fields of a JSON object that a caller sent, under either spelling; faults name the caller's own."""

from collections.abc import Mapping

from hector.domain.errors import InvalidError
from hector.domain.messages import JsonValue, Metadata

_DEEPEST = 30
"""Levels in data and metadata. Protobuf's readers go 100 deep, and each object takes three in its words."""
_SNAKE = {
    "acceptedOutputModes": "accepted_output_modes",
    "configId": "config_id",
    "contextId": "context_id",
    "fileWithBytes": "file_with_bytes",
    "fileWithUri": "file_with_uri",
    "historyLength": "history_length",
    "includeArtifacts": "include_artifacts",
    "mediaType": "media_type",
    "messageId": "message_id",
    "mimeType": "mime_type",
    "pageSize": "page_size",
    "pageToken": "page_token",
    "pushNotification": "push_notification",
    "pushNotificationConfig": "push_notification_config",
    "pushNotificationConfigId": "push_notification_config_id",
    "returnImmediately": "return_immediately",
    "statusTimestampAfter": "status_timestamp_after",
    "taskId": "task_id",
    "taskPushNotificationConfig": "task_push_notification_config",
}


def snake_case(name: str) -> str:
    """The other spelling of a field, where it has one."""
    return _SNAKE.get(name, name)


class Fields:
    """One JSON object, its fields under either spelling, and its place in the body."""

    __slots__ = ("_values", "place")

    def __init__(self, values: Mapping[str, JsonValue], place: str) -> None:
        self._values = values
        self.place = place

    def path(self, name: str) -> str:
        """As the caller spelt it."""
        snake = _SNAKE.get(name)
        spelt = snake if snake in self._values and name not in self._values else name
        return f"{self.place}.{spelt}" if self.place else str(spelt)

    def raw(self, name: str) -> JsonValue:
        value = self._values.get(name)
        if value is None and (snake := _SNAKE.get(name)):
            value = self._values.get(snake)
        return value

    def text(self, name: str) -> str | None:
        """None where it is absent or null."""
        value = self.raw(name)
        if value is None or isinstance(value, str):
            return value
        raise self._wrong(name, "a string", value)

    def filled(self, name: str) -> str | None:
        """Like `text`; protobuf's writers may send '' for what is not set."""
        return self.text(name) or None

    def flag(self, name: str) -> bool | None:
        value = self.raw(name)
        if value is None or isinstance(value, bool):
            return value
        raise self._wrong(name, "true or false", value)

    def count(self, name: str) -> int | None:
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._wrong(name, "a whole number from 0", value)
        return value

    def object(self, name: str) -> "Fields | None":
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(name, "an object", value)
        return Fields(value, self.path(name))

    def objects(self, name: str) -> "list[Fields]":
        value = self.raw(name)
        path = self.path(name)
        if not isinstance(value, list):
            raise self._wrong(name, "an array", value)
        found = []
        for number, item in enumerate(value):
            if not isinstance(item, dict):
                raise InvalidError(f"{path}[{number}]", f"wanted an object, found {kind_of(item)}")
            found.append(Fields(item, f"{path}[{number}]"))
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """Empty where it is absent or null."""
        value = self.raw(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self._wrong(name, "an array", value)
        for number, item in enumerate(value):
            if not isinstance(item, str):
                raise InvalidError(f"{self.path(name)}[{number}]", f"wanted a string, found {kind_of(item)}")
        return tuple(str(item) for item in value)

    def metadata(self, name: str = "metadata") -> Metadata | None:
        if (found := self.object(name)) is None:
            return None
        check_depth(found.values, found.place)
        return found.values

    def only(self, names: tuple[str, ...]) -> str:
        """Which of these alternatives is there. Raises if it is none, or more than one."""
        present = [name for name in names if self.raw(name) is not None]
        if len(present) == 1:
            return present[0]
        wanted = f"wanted one of {', '.join(names)}"
        if present:
            raise InvalidError(self.place, f"{wanted}, found {' and '.join(present)}")
        found = ", ".join(sorted(self._values)) or "nothing"
        raise InvalidError(self.place, f"{wanted}, found {found}")

    @property
    def values(self) -> Mapping[str, JsonValue]:
        return self._values

    def _wrong(self, name: str, wanted: str, value: JsonValue) -> InvalidError:
        return InvalidError(self.path(name), f"wanted {wanted}, found {shown(value)}")


def check_depth(value: object, place: str) -> None:
    """Refuse what the recursive readers and writers after us could stumble over."""
    level: list[object] = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise InvalidError(place, f"is nested more than {_DEEPEST} levels deep")


def kind_of(value: object) -> str:
    """In JSON's words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def shown(value: JsonValue) -> str:
    """Whole numbers as they are, for they explain the fault; never what somebody said."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return kind_of(value) if isinstance(value, float) else f"the number {value}"
    return kind_of(value)
