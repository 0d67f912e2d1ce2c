"""Messages as JSON text and back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from hector.storage.codec import (
    INLINE_BYTES,
    decode,
    encode,
    encode_notes,
    file_references,
    role_of,
    storable,
)

any_text = st.text(st.characters(codec=None), max_size=20)
maybe_text = st.none() | any_text
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)
metadata = st.none() | st.dictionaries(any_text, json_values, max_size=3)
contents = st.binary(max_size=50) | st.sampled_from(
    [b"x" * INLINE_BYTES, b"x" * (INLINE_BYTES + 1), b"y" * (INLINE_BYTES + 1)]
)
uris = st.lists(any_text, max_size=3).map(tuple)
texts = st.builds(Text, any_text, metadata)
data = st.builds(Data, json_values, maybe_text, metadata)
files = st.builds(File, maybe_text, maybe_text, contents, st.none(), metadata) | st.builds(
    File, maybe_text, maybe_text, st.none(), any_text, metadata
)
thinking = st.builds(Thinking, any_text, maybe_text)
calls = st.builds(ToolCall, any_text, any_text, any_text, st.booleans())
results = st.builds(ToolResult, any_text, any_text, any_text, st.booleans(), maybe_text)
messages: st.SearchStrategy[Message] = (
    st.builds(UserMessage, st.lists(texts | data | files, max_size=4).map(tuple), metadata, uris)
    | st.builds(ModelMessage, st.lists(texts | thinking | data | files | calls, max_size=4).map(tuple))
    | st.builds(ToolMessage, results)
)


@given(messages)
def test_a_message_comes_back_as_it_was(message: Message) -> None:
    content, kept = encode(message)
    text = encode_notes(message) if isinstance(message, UserMessage) else None
    again = decode(role_of(message), content, text, kept)
    assert again == message
    if isinstance(message, UserMessage):
        assert isinstance(again, UserMessage)
        assert again.metadata == (message.metadata or None)
        assert again.extensions == message.extensions


@given(messages)
def test_the_content_is_unicode_json_without_nul(message: Message) -> None:
    content, kept = encode(message)
    content.encode()
    assert "\0" not in content
    assert isinstance(json.loads(content), list)
    assert set(file_references(content)) == kept.keys()
    assert all(len(file) > INLINE_BYTES for file in kept.values())


def test_text_stands_first_and_is_not_escaped() -> None:
    content, _ = encode(UserMessage((Text("né \U0001f600 漢字"),)))
    assert content == '[{"text": "né \U0001f600 漢字"}]'


@pytest.mark.parametrize(
    ("message", "stored"),
    [
        (ModelMessage(()), "[]"),
        (ModelMessage((Thinking("hm"), Text("ok"))), '[{"thinking": "hm"}, {"text": "ok"}]'),
        (UserMessage((Data(None),)), '[{"data": null}]'),
        (UserMessage((Text("", {}),)), '[{"text": "", "metadata": {}}]'),
        (
            UserMessage((File("a/b", "n", b"hi"),)),
            '[{"file": {"media_type": "a/b", "name": "n", "bytes": "aGk="}}]',
        ),
        (UserMessage((File(url="http://x/"),)), '[{"file": {"url": "http://x/"}}]'),
        (
            ModelMessage((ToolCall("1", "f", "{broken"),)),
            '[{"tool_call": {"id": "1", "name": "f", "arguments": "{broken"}}]',
        ),
        (
            ToolMessage(ToolResult("1", "f", "no", is_error=True)),
            '[{"tool_result": {"call_id": "1", "name": "f", "text": "no", "is_error": true}}]',
        ),
        (
            ToolMessage(ToolResult("1", "f", "asked", question="which?")),
            '[{"tool_result": {"call_id": "1", "name": "f", "text": "asked", "question": "which?"}}]',
        ),
        (ModelMessage((Text("\ud83d \0"),)), '[{"text": "\\ud83d \\u0000"}]'),
        (ModelMessage((Text("é\ud83d"),)), '[{"text": "é\\ud83d"}]'),
    ],
)
def test_the_stored_form_stays_as_it_is(message: Message, stored: str) -> None:
    assert encode(message)[0] == stored
    assert decode(role_of(message), stored) == message


def test_a_big_file_that_was_not_read_keeps_its_hash_and_size() -> None:
    content, kept = encode(UserMessage((File("a/b", "n", b"x" * 70_000),)))
    ((digest, _),) = kept.items()
    assert decode(1, content) == UserMessage((File("a/b", "n", sha256=digest, size=70_000),))
    assert encode(decode(1, content))[0] == content


def test_what_was_read_without_its_file_is_not_taken_for_what_has_it() -> None:
    whole = UserMessage((File("a/b", "n", b"x" * 70_000),))
    content, kept = encode(whole)
    bare = decode(1, content)
    assert decode(1, content, files=kept) == whole
    assert decode(1, content) == bare != whole


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        encode(UserMessage((Data(value),)))


def test_a_part_of_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="known kinds"):
        decode(1, '[{"hologram": 1}]')


@given(any_text)
def test_storable_text_is_unicode_without_nul(text: str) -> None:
    clean = storable(text)
    clean.encode()
    assert "\0" not in clean
    assert len(clean) == len(text)
