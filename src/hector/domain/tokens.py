"""How many tokens a message takes in a model's context."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import assert_never

from hector.domain.memory import TokenCounter
from hector.domain.messages import Data, File, Message, Part, Text, Thinking, ToolCall, ToolResult

MESSAGE_TOKENS = 4
"""What providers add to each message, for its role and its ends."""
FILE_TOKENS = 800
"""Stands for a file that is not text: a picture of usual size."""
PIECE = 32 * 1024
"""Characters. An ordinary piece is counted in 1 ms, the worst that was found in 15 ms."""

_WORD_END = re.compile(r"[A-Za-z](?= [A-Za-z])")


async def count_message(counter: TokenCounter, message: Message) -> int:
    """The message's tokens, exact for texts up to `PIECE`; above, off by a few for each piece at the worst.

    The event loop has its turn after each piece, so that a message of many megabytes holds up nobody else.
    """
    total = MESSAGE_TOKENS
    for part in message.parts:
        if isinstance(part, File) and not _is_text(part):
            total += FILE_TOKENS
        for piece in pieces(_text_of(part)):
            total += counter.count(piece)
            if len(piece) > PIECE // 2:
                await asyncio.sleep(0)
    return total


def pieces(text: str) -> Iterator[str]:
    """The text in parts of at most `PIECE` characters, cut between two words where there are any."""
    start = 0
    while len(text) - start > PIECE:
        # Tokenizers end a token between a letter and a space before a letter, so such parts add up exactly.
        ends = [match.end() for match in _WORD_END.finditer(text, start + PIECE - 256, start + PIECE)]
        end = ends[-1] if ends else start + PIECE
        yield text[start:end]
        start = end
    yield text[start:]


def _text_of(part: Part) -> str:
    match part:
        case Text(text=text) | Thinking(text=text) | ToolResult(text=text):
            return text
        case Data(value=value):
            return json.dumps(value, ensure_ascii=False)
        case ToolCall(name=name, arguments=arguments):
            return f"{name}{arguments}"
        case File():
            return part.data.decode(errors="replace") if part.data and _is_text(part) else part.url or ""
        case _:
            assert_never(part)


def _is_text(file: File) -> bool:
    return (file.media_type or "").startswith("text/")
