import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
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
from hector.domain.tokens import FILE_TOKENS, MESSAGE_TOKENS, PIECE, count_message, pieces


class Letters:
    """A token is a character."""

    def __init__(self) -> None:
        self.counted: list[str] = []

    def count(self, text: str) -> int:
        self.counted.append(text)
        return len(text)

    def cut(self, text: str, tokens: int) -> str:
        return text[:tokens]


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        (UserMessage((Text("abc"),)), 3),
        (UserMessage((Text("abc"), Text("de"))), 5),
        (UserMessage((Data({"é": 1}),)), len('{"é": 1}')),
        (UserMessage((File("image/png", data=b"\x89PNG"),)), FILE_TOKENS),
        (UserMessage((File("image/png", url="http://x/y"),)), FILE_TOKENS + 10),
        (UserMessage((File("text/plain", data="né".encode()),)), 2),
        (ModelMessage((Thinking("hm"), Text("ok"))), 4),
        (ModelMessage((ToolCall("id", "name", "{}"),)), 6),
        (ToolMessage(ToolResult("id", "name", "result")), 6),
        (ModelMessage(()), 0),
    ],
)
async def test_a_messages_tokens_are_those_of_all_that_it_says(message: Message, tokens: int) -> None:
    assert await count_message(Letters(), message) == tokens + MESSAGE_TOKENS


@given(
    text=st.builds(
        lambda unit, times: unit * times,
        st.text(st.sampled_from("ab  \nC=é"), min_size=1, max_size=50),
        st.integers(1, 3 * PIECE // 50),
    )
)
@settings(max_examples=30, deadline=None)
def test_pieces_are_the_text_and_none_is_too_long(text: str) -> None:
    parts = list(pieces(text))
    assert "".join(parts) == text
    assert all(0 < len(part) <= PIECE for part in parts)


def test_pieces_end_between_words() -> None:
    parts = list(pieces("lorem ipsum dolor " * 10_000))
    assert len(parts) > 1
    assert all(part[-1].isalpha() and after[0] == " " for part, after in pairwise(parts))


async def test_the_event_loop_has_its_turn_while_a_long_text_is_counted() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    counter = Letters()
    await count_message(counter, UserMessage((Text("x" * 20 * PIECE),)))
    other.cancel()
    assert len(counter.counted) == 20
    assert turns >= 19
