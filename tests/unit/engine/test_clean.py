import pytest

from hector.domain.messages import ModelMessage, Text, Thinking, ToolCall
from hector.engine.clean import accepted, storable


@pytest.mark.parametrize(
    ("text", "clean"),
    [("plain é 🚀", "plain é 🚀"), ("a\0b", "a�b"), ("a\ud83db", "a�b"), ("\udc00", "�")],
)
def test_what_no_database_stores_is_replaced(text: str, clean: str) -> None:
    assert storable(text) == clean


def test_all_texts_of_a_message_are_made_storable() -> None:
    message = ModelMessage((Text("a\0"), Thinking("b\0", "sig"), ToolCall("i\0", "n\0", "{\0}")))
    assert accepted(message, used_ids=(), idempotent=lambda _: False) == ModelMessage(
        (Text("a�"), Thinking("b�", "sig"), ToolCall("i�", "n�", "{�}"))
    )


@pytest.mark.parametrize(
    ("ids", "used", "unique"),
    [
        (["x", "y"], [], ["x", "y"]),
        (["x", "x"], [], ["x", "call_2"]),
        (["", ""], [], ["call_1", "call_2"]),
        (["x"], ["x"], ["call_2"]),
        (["call_2", ""], [], ["call_2", "call_3"]),
    ],
)
def test_each_call_gets_an_id_that_the_turn_has_once(
    ids: list[str], used: list[str], unique: list[str]
) -> None:
    message = ModelMessage(tuple(ToolCall(each, "f", "{}") for each in ids))
    clean = accepted(message, used_ids=used, idempotent=lambda _: False)
    assert [call.id for call in clean.calls] == unique


def test_a_call_bears_its_tools_declaration_whatever_the_model_library_set() -> None:
    message = ModelMessage((ToolCall("1", "read", "{}"), ToolCall("2", "pay", "{}", idempotent=True)))
    clean = accepted(message, used_ids=(), idempotent=lambda name: name == "read")
    assert [call.idempotent for call in clean.calls] == [True, False]
