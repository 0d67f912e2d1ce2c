"""Sessions for the tests of working memory: by hand, and as Hypothesis makes them."""

from collections.abc import Sequence

from hypothesis import strategies as st

from hector.domain.memory import Tail
from hector.domain.messages import (
    Message,
    ModelMessage,
    StoredMessage,
    Text,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from hector.domain.tokens import MESSAGE_TOKENS


class Letters:
    """A token is a character."""

    def count(self, text: str) -> int:
        return len(text)

    def cut(self, text: str, tokens: int) -> str:
        return text[: max(tokens, 0)]


def user(text: str) -> UserMessage:
    return UserMessage((Text(text),))


def said(text: str) -> ModelMessage:
    return ModelMessage((Text(text),))


def asking(*ids: str) -> ModelMessage:
    return ModelMessage(tuple(ToolCall(each, "f", "{}") for each in ids))


def result(call_id: str, text: str = "done") -> ToolMessage:
    return ToolMessage(ToolResult(call_id, "f", text))


def size(message: Message) -> int:
    """What a message takes by `Letters`."""
    total = MESSAGE_TOKENS
    for part in message.parts:
        match part:
            case Text(text=text) | ToolResult(text=text):
                total += len(text)
            case ToolCall(name=name, arguments=arguments):
                total += len(name) + len(arguments)
            case _:
                raise AssertionError("these tests make no such parts")
    return total


def tail(*turns: tuple[str, Sequence[Message]], unanswered: str | None = None) -> Tail:
    """The turns' messages in their order; `unanswered` holds for all."""
    stored = [
        StoredMessage(message, None, turn_id, size(message), unanswered=unanswered)
        for turn_id, messages in turns
        for message in messages
    ]
    return Tail(tuple(each._replace(seq=seq) for seq, each in enumerate(stored, start=1)))


texts = st.text("abc ", max_size=30)


@st.composite
def turn(draw: st.DrawFn, name: str) -> list[StoredMessage]:
    """One turn's messages, whole, in any state."""
    messages: list[Message] = [user(draw(texts))]
    for step in range(draw(st.integers(0, 2))):
        ids = [f"{name}.{step}.{n}" for n in range(draw(st.integers(1, 3)))]
        messages += [asking(*ids), *(result(each, draw(texts)) for each in draw(st.permutations(ids)))]
    if draw(st.booleans()):
        messages += [said(draw(texts) + "?"), user(draw(texts))]
    unanswered = draw(st.sampled_from([None, None, "crashed", "superseded", "waiting for input"]))
    messages.append(said(draw(texts) + "."))
    return [StoredMessage(each, None, name, size(each), unanswered=unanswered) for each in messages]


@st.composite
def sessions(draw: st.DrawFn) -> Tail:
    """The end of a session, cut off anywhere; some turns lie between the parts of others."""
    turns = [draw(turn(f"t{number}")) for number in range(draw(st.integers(0, 5)))]
    stored: list[StoredMessage] = []
    while any(turns):
        source = draw(st.sampled_from([each for each in turns if each]))
        count = draw(st.integers(1, len(source)))
        stored += source[:count]
        del source[:count]
    numbered = [each._replace(seq=seq) for seq, each in enumerate(stored, start=1)]
    return Tail(tuple(numbered[draw(st.integers(0, len(numbered))) :]))


def assert_no_call_without_its_result(messages: Sequence[Message]) -> None:
    expected: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            assert expected, "a result without its call"
            assert message.result.call_id == expected.pop(0)
            continue
        assert not expected, "a call without its result"
        if isinstance(message, ModelMessage):
            expected = [call.id for call in message.calls]
    assert not expected, "a call without its result"
