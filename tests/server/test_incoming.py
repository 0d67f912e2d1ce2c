"""What callers may send, in each dialect, and what they are told of their mistakes."""

import base64
import json
from typing import Any

import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2 as proto_03
from a2a.compat.v0_3 import types as types_03
from a2a.types import a2a_pb2 as proto_10
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given
from hypothesis import strategies as st

from hector.domain.errors import InvalidError
from hector.domain.messages import Data, File, JsonValue, Metadata, Text, UserMessage
from hector.domain.push import PushConfig
from hector.server.a2a import wire
from hector.server.a2a.dialect import Dialect, named_version
from hector.server.a2a.incoming import SendRequest, read_send
from hector.server.http.body import parse_object
from hector.server.statuses import VersionNotSupportedError

PNG = b"\x89PNG\xff\xfe\xfd"
PNG_64 = base64.b64encode(PNG).decode()
HELLO: Any = [{"text": "hello"}]


def read(message: Any, *, version: str | None = None, **more: Any) -> SendRequest:
    return read_send({"message": message} | more, version=named_version(version))


@pytest.mark.parametrize(
    ("message", "dialect"),
    [
        ({"content": HELLO}, Dialect.V03_PROTO),
        ({"parts": [{"kind": "text", "text": "hello"}]}, Dialect.V03_JSON),
        ({"parts": HELLO}, Dialect.V1),
    ],
)
def test_the_shape_of_a_message_tells_its_dialect(message: Any, dialect: Dialect) -> None:
    asked = read(message | {"role": "user"})
    assert (asked.dialect, asked.message) == (dialect, UserMessage((Text("hello"),)))


@pytest.mark.parametrize(
    ("version", "message", "dialect"),
    [
        ("1.0", {"parts": HELLO}, Dialect.V1),
        ("1.0.1", {"parts": HELLO}, Dialect.V1),
        ("0.3", {"content": HELLO}, Dialect.V03_PROTO),
        ("0.3.0", {"parts": [{"kind": "text", "text": "hello"}]}, Dialect.V03_JSON),
    ],
)
def test_a_named_version_wins(version: str, message: Any, dialect: Dialect) -> None:
    asked = read(message | {"role": "ROLE_USER", "messageId": "m"}, version=version)
    assert asked.dialect is dialect


@pytest.mark.parametrize("version", ["2.0", "0.2", "1", "1.1", "1.0.0.0", "one", "1.0-rc1", "..", "0.3x"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(VersionNotSupportedError):
        named_version(version)


@pytest.mark.parametrize("version", [None, "", "  "])
def test_an_empty_version_says_nothing(version: str | None) -> None:
    assert named_version(version) is None


@pytest.mark.parametrize(
    ("configuration", "at_once"), [({}, True), ({"blocking": True}, False), (None, False)]
)
def test_a_client_of_0_3_leaves_out_what_is_false(configuration: Any, at_once: bool) -> None:
    message = {"messageId": "m", "role": "ROLE_USER", "content": HELLO}
    assert read(message, version="0.3", configuration=configuration).at_once is at_once


def test_fields_may_be_written_in_either_way() -> None:
    camel: Any = {"messageId": "m", "contextId": "c", "taskId": "t", "role": "user", "parts": HELLO}
    snake: Any = {"message_id": "m", "context_id": "c", "task_id": "t", "role": 1, "parts": HELLO}
    assert read(camel) == read(snake)
    asked = read(camel)
    assert (asked.message_id, asked.context_id, asked.task_id) == ("m", "c", "t")


@pytest.mark.parametrize("role", [1, "user", "ROLE_USER", None, 0, "ROLE_UNSPECIFIED"])
def test_the_user_speaks(role: Any) -> None:
    assert read({"role": role, "parts": HELLO}).message.text == "hello"


def test_what_is_null_or_empty_is_absent() -> None:
    asked = read(
        {"contextId": None, "taskId": "", "messageId": "", "metadata": None, "content": HELLO},
        configuration=None,
    )
    assert (asked.context_id, asked.task_id, asked.message_id, asked.message.metadata) == (
        None,
        None,
        None,
        None,
    )


def test_request_is_another_name_of_message() -> None:
    asked = read_send({"request": {"content": HELLO}}, version=None)
    assert (asked.message.text, asked.place) == ("hello", "request")


@pytest.mark.parametrize(
    ("configuration", "at_once", "history"),
    [
        ({}, False, 0),
        ({"blocking": True}, False, 0),
        ({"blocking": False}, True, 0),
        ({"returnImmediately": True}, True, 0),
        ({"return_immediately": True, "history_length": 3}, True, 3),
        ({"historyLength": 0, "acceptedOutputModes": ["text"]}, False, 0),
    ],
)
def test_the_configuration(configuration: Any, at_once: bool, history: int) -> None:
    asked = read({"content": HELLO}, configuration=configuration)
    assert (asked.at_once, asked.history) == (at_once, history)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"text": "x", "metadata": {"k": [1]}}, Text("x", {"k": [1]})),
        ({"raw": PNG_64, "mediaType": "image/png", "filename": "x"}, File("image/png", "x", PNG)),
        ({"raw": PNG_64.rstrip("=").replace("/", "_").replace("+", "-")}, File(data=PNG)),
        ({"url": "https://example.org"}, File(url="https://example.org")),
        ({"data": [1, {"a": None}], "media_type": "x/y"}, Data([1, {"a": None}], "x/y")),
        ({"data": None}, Data(None)),
    ],
)
def test_parts_of_1_0(part: Any, expected: Any) -> None:
    assert read({"parts": [part]}).message.parts == (expected,)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"kind": "text", "text": "x"}, Text("x")),
        ({"kind": "data", "data": {"a": 1}}, Data({"a": 1})),
        ({"kind": "file", "file": {"bytes": PNG_64, "mimeType": "i/p"}}, File("i/p", None, PNG)),
        ({"kind": "file", "file": {"uri": "https://x.y", "name": "n"}}, File(None, "n", None, "https://x.y")),
    ],
)
def test_parts_of_0_3(part: Any, expected: Any) -> None:
    assert read({"parts": [part]}).message.parts == (expected,)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"text": "x"}, Text("x")),
        ({"data": {"data": {"a": 1}}}, Data({"a": 1})),
        ({"file": {"file_with_bytes": PNG_64, "mime_type": "i/p"}}, File("i/p", None, PNG)),
        ({"file": {"fileWithUri": "https://x.y", "name": "n"}}, File(None, "n", None, "https://x.y")),
    ],
)
def test_parts_of_0_3_over_http(part: Any, expected: Any) -> None:
    assert read({"content": [part]}).message.parts == (expected,)


def test_what_the_sdk_writes_is_understood() -> None:
    v1 = proto_10.SendMessageRequest()
    v1.message.message_id, v1.message.role, v1.message.context_id = "m", proto_10.ROLE_USER, "c"
    v1.message.parts.add(text="hello")
    v03 = proto_03.SendMessageRequest()
    v03.request.message_id, v03.request.role, v03.request.context_id = "m", proto_03.ROLE_USER, "c"
    v03.request.content.add(text="hello")
    plain = types_03.MessageSendParams(
        message=types_03.Message(
            message_id="m",
            role=types_03.Role.user,
            context_id="c",
            parts=[types_03.Part(root=types_03.TextPart(text="hello"))],
        )
    )
    bodies: list[Any] = [
        MessageToDict(v1),
        MessageToDict(v03),
        MessageToDict(v03, preserving_proto_field_name=True),
        plain.model_dump(mode="json", by_alias=True, exclude_none=True),
    ]
    read_ones = [read_send(body, version=None) for body in bodies]
    assert {(asked.message_id, asked.context_id, asked.message.text) for asked in read_ones} == {
        ("m", "c", "hello")
    }
    assert [asked.dialect for asked in read_ones] == [
        Dialect.V1, Dialect.V03_PROTO, Dialect.V03_PROTO, Dialect.V03_JSON,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "field", "text"),
    [  # each is one mistake
        ({}, "message", "is missing"),
        ({"message": "hi"}, "message", "wanted an object, found a string"),
        ({"message": {}}, "message", "has neither content nor parts"),
        ({"request": {"parts": None}}, "request", "has neither content nor parts"),
        ({"message": {"content": HELLO, "parts": HELLO}}, "message", "has both content and parts; send one"),
        ({"message": {"content": HELLO, "parts": []}}, "message", "has both content and parts"),
        ({"message": {"content": [{"text": ""}]}}, "message.content", "says nothing"),
        ({"message": {"parts": [{"text": " \n"}, {"text": "\t"}]}}, "message.parts", "says nothing"),
        ({"request": {"parts": [{"kind": "text", "text": " "}]}}, "request.parts", "says nothing"),
        ({"message": {"parts": HELLO, "contextId": ""}}, "message.contextId", "1 to 191 characters"),
        ({"message": {"parts": HELLO, "context_id": ""}}, "message.context_id", "1 to 191 characters"),
        ({"message": {"content": "hi"}}, "message.content", "wanted an array, found a string"),
        ({"message": {"content": ["hi"]}}, "message.content[0]", "wanted an object, found a string"),
        ({"message": {"content": [{"text": 7}]}}, "message.content[0].text", "found the number 7"),
        (
            {"message": {"content": [*HELLO, {"test": "x"}]}},
            "message.content[1]",
            "wanted one of text, file, data, found test",
        ),
        ({"message": {"content": [{"text": "x", "data": {}}]}}, "message.content[0]", "found text and data"),
        (
            {"message": {"content": [{"file": {}}]}},
            "message.content[0].file",
            "wanted one of fileWithBytes, fileWithUri, found nothing",
        ),
        (
            {"message": {"content": [{"data": {"data": [1]}}]}},
            "message.content[0].data.data",
            "found an array",
        ),
        ({"message": {"content": [{"data": {}}]}}, "message.content[0].data.data", "is missing"),
        (
            {"message": {"parts": [{}]}},
            "message.parts[0]",
            "wanted one of text, raw, url, data, found nothing",
        ),
        ({"message": {"parts": [{"raw": "%%%"}]}}, "message.parts[0].raw", "is not base64"),
        ({"message": {"parts": [{"raw": "ä"}]}}, "message.parts[0].raw", "is not base64"),
        (
            {"message": {"parts": [{"text": "x", "mediaType": 1}]}},
            "message.parts[0].mediaType",
            "wanted a string",
        ),
        ({"message": {"parts": [{"kind": "texts", "text": "x"}]}}, "message.parts[0].kind", "found 'texts'"),
        ({"message": {"parts": [{"kind": "text"}]}}, "message.parts[0].text", "is missing"),
        (
            {"message": {"parts": [{"kind": "text", "text": "x"}, {"text": "x"}]}},
            "message.parts[1].kind",
            "found nothing",
        ),
        ({"message": {"parts": [{"kind": "file"}]}}, "message.parts[0].file", "is missing"),
        (
            {"message": {"parts": [{"kind": "data", "data": "x"}]}},
            "message.parts[0].data",
            "wanted an object",
        ),
        ({"message": {"parts": HELLO, "role": "agent"}}, "message.role", "found 'agent'"),
        ({"message": {"parts": HELLO, "role": "who knows"}}, "message.role", "found a string"),
        ({"message": {"parts": HELLO, "role": 2}}, "message.role", "found the number 2"),
        ({"message": {"parts": HELLO, "role": True}}, "message.role", "found a boolean"),
        ({"message": {"parts": HELLO, "context_id": 7}}, "message.context_id", "found the number 7"),
        ({"message": {"parts": HELLO, "contextId": {}}}, "message.contextId", "found an object"),
        ({"request": {"parts": HELLO, "taskId": []}}, "request.taskId", "found an array"),
        ({"message": {"parts": HELLO, "metadata": 1}}, "message.metadata", "wanted an object"),
        ({"message": {"parts": HELLO}, "configuration": []}, "configuration", "wanted an object"),
        (
            {"message": {"parts": HELLO}, "configuration": {"blocking": "no"}},
            "configuration.blocking",
            "true or false",
        ),
        (
            {"message": {"parts": HELLO}, "configuration": {"history_length": -1}},
            "configuration.history_length",
            "from 0",
        ),
        (
            {"message": {"parts": HELLO}, "configuration": {"acceptedOutputModes": "text/plain"}},
            "configuration.acceptedOutputModes",
            "wanted an array, found a string",
        ),
        (
            {"message": {"parts": HELLO}, "configuration": {"accepted_output_modes": ["text/plain", 1]}},
            "configuration.accepted_output_modes[1]",
            "wanted a string, found a number",
        ),
        (
            {"message": {"parts": HELLO}, "configuration": {"historyLength": True}},
            "configuration.historyLength",
            "found a boolean",
        ),
    ],
)
def test_a_fault_names_the_callers_own_field(body: Any, field: str, text: str) -> None:
    with pytest.raises(InvalidError) as refused:
        read_send(body, version=None)
    assert refused.value.field == field
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("version", "message", "field"),
    [
        ("1.0", {"role": "ROLE_USER", "parts": HELLO}, "message.messageId"),
        ("1.0", {"messageId": "m", "parts": HELLO}, "message.role"),
        ("1.0", {"messageId": "m", "role": "ROLE_USER", "content": HELLO}, "message.parts"),
        ("1.0", {"messageId": "m", "role": "ROLE_USER", "parts": [{"kind": "text"}]}, "message.parts[0]"),
        ("0.3", {"messageId": "m", "role": "user", "parts": HELLO}, "message.parts[0].kind"),
        ("0.3", {"role": "user", "content": HELLO}, "message.messageId"),
    ],
)
def test_who_names_a_version_is_held_to_it(version: str, message: Any, field: str) -> None:
    with pytest.raises(InvalidError) as refused:
        read(message, version=version)
    assert refused.value.field == field


def test_the_idempotency_key_stands_in_for_a_message_id() -> None:
    body: Any = {"message": {"role": "ROLE_USER", "parts": HELLO}}
    assert read_send(body, version=Dialect.V1, idempotency_key="k").message_id == "k"
    body["message"]["messageId"] = "k"
    assert read_send(body, version=Dialect.V1, idempotency_key="k").message_id == "k"


def test_two_message_ids_are_one_too_many() -> None:
    body: Any = {"message": {"message_id": "m", "role": "user", "parts": HELLO}}
    with pytest.raises(InvalidError, match="differs from the header Idempotency-Key") as refused:
        read_send(body, version=None, idempotency_key="k")
    assert refused.value.field == "message.message_id"


def test_a_message_may_say_nothing_beside_what_it_brings() -> None:
    asked = read({"parts": [{"text": ""}, {"url": "https://example.org"}]})
    assert asked.message.parts == (Text(""), File(url="https://example.org"))


@pytest.mark.parametrize(
    ("message", "name", "dialect"),
    [
        ({"content": HELLO}, "push_notification", "0.3 proto"),
        ({"parts": [{"kind": "text", "text": "hi"}]}, "pushNotificationConfig", "0.3 json"),
        ({"parts": [{"text": "hi"}]}, "taskPushNotificationConfig", "1.0"),
    ],
)
def test_a_message_brings_a_webhook_in_each_dialect(message: dict[str, Any], name: str, dialect: str) -> None:
    asked = read(message, configuration={name: {"id": "c", "url": "https://x.y", "token": "t"}})
    assert asked.push == PushConfig("c", "https://x.y", dialect, "t")
    assert asked.push_place == f"configuration.{name}"


def test_no_webhook_is_no_webhook() -> None:
    assert read({"content": HELLO}, configuration={"pushNotificationConfig": {}}).push is None
    assert read({"content": HELLO}, configuration={"pushNotificationConfig": None}).push is None


@pytest.mark.parametrize("place", ["metadata", "parts"])
def test_what_is_nested_beyond_reason_is_refused(place: str) -> None:
    deep: Any = {}
    for _ in range(30):
        deep = {"x": deep}
    message = {"parts": HELLO, "metadata": deep} if place == "metadata" else {"parts": [{"data": deep}]}
    with pytest.raises(InvalidError, match="nested"):
        read(message)
    read({"parts": [{"data": deep["x"]}]})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "is not JSON"),
        (b"{", "line 1, column 2"),
        (b'{"a": 1}}', "is not JSON"),
        (b"[]", "is an array"),
        (b"null", "is null"),
        (b'{"a": NaN}', "holds NaN"),
        (b'{"a": -Infinity}', "holds -Infinity"),
        (b'{"b": 0, "a": 1, "a": 2}', "names the key 'a' twice"),
        (b'{"%(k)s": 1, "%(k)s": 2}' % {b"k": b"k" * 1000}, f"names the key '{'k' * 64}...' twice"),
        (b'{"a": "\xff"}', "is not UTF-8 at byte 7"),
        (json.dumps({"a": 1}).encode("utf-16"), "is not UTF-8"),
        (b"\xef\xbb\xbf\xff", "is not UTF-8 at byte 3"),
        (b'{"a":' * 50_000, "is nested too deeply"),
        (b"[" * 50_000, "is nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number that is too long"),
    ],
)
def test_bodies_that_are_no_json_object_are_refused(body: bytes, text: str) -> None:
    with pytest.raises(InvalidError, match=text) as refused:
        parse_object(body)
    assert refused.value.field == "body"


def test_a_byte_order_mark_is_no_fault() -> None:
    assert parse_object(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)
_metadata: st.SearchStrategy[Metadata | None] = st.none() | st.dictionaries(
    _texts.filter(lambda name: name != "data_part_compat"), _values, min_size=1, max_size=2
)
_names = st.none() | _texts.filter(bool)
_parts = (
    st.builds(Text, _texts, _metadata)
    | st.builds(Data, _values, st.none(), _metadata)
    | st.builds(
        lambda kind, name, data, more: File(kind, name, data, None, more),
        _names,
        _names,
        st.binary(),
        _metadata,
    )
    | st.builds(
        lambda kind, name, url, more: File(kind, name, None, url, more),
        _names,
        _names,
        _texts.filter(bool),
        _metadata,
    )
)


@given(parts=st.lists(_parts, max_size=4), dialect=st.sampled_from(Dialect))
def test_parts_survive_the_way_out_and_back(parts: list[Any], dialect: Dialect) -> None:
    name = "content" if dialect is Dialect.V03_PROTO else "parts"
    # A message that says nothing would be refused.
    parts = [*parts, Text("x")]
    sent = {"role": "user", name: [wire.part_json(dialect, part) for part in parts]}
    body = parse_object(json.dumps({"message": sent}).encode())
    assert read_send(body, version=None).message.parts == tuple(parts)


@pytest.mark.parametrize("mark", [1, "true", False, None])
def test_data_of_0_3_is_what_it_is_where_no_mark_says_that_it_is_wrapped(mark: Any) -> None:
    held: Any = {"kind": "data", "data": {"value": 1}, "metadata": {"data_part_compat": mark}}
    assert read({"parts": [held]}).message.parts == (Data(held["data"], None, held["metadata"]),)
    more: Any = {"kind": "data", "data": {"value": 1, "x": 2}, "metadata": {"data_part_compat": True}}
    assert read({"parts": [more]}).message.parts == (Data(more["data"], None, more["metadata"]),)


def test_the_sdk_reads_what_we_read() -> None:
    """The table above is no invention of ours: protobuf takes the same spellings."""
    ParseDict({"message": {"context_id": "c", "role": 1, "content": HELLO}}, proto_03.SendMessageRequest())
    ParseDict(
        {"request": {"contextId": "c", "role": "ROLE_USER", "content": HELLO}}, proto_03.SendMessageRequest()
    )
