"""The model behind the servers: it records what it is asked, takes a random while, and answers."""

import asyncio
import random
import re
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from tests.chaos.history import History, Line, ModelCall, reply_to
from tests.fakes.openai_server import Behaviour, FakeOpenAI

LONGEST_ANSWER = 0.03
"""Seconds."""

LINGERS = 0.15
"""How many answers are streamed slowly."""

_MARKED = re.compile(r"(\S+)(?:\s+\[not answered: ([^\]]*)\])?")
_REPLY = re.compile(r"reply \d+ to \S+")
_SAID = {
    "user": re.compile(rf"(?:{_MARKED.pattern}\s*)+"),
    "assistant": re.compile(rf"(?:{_REPLY.pattern}\s*)+"),
}


def instructions_of(agent: str) -> str:
    return f"You are {agent}."


def model_of(agent: str) -> str:
    return f"model-of-{agent}"


class RecordingModel(FakeOpenAI):
    """Speaks OpenAI's protocol, streamed and not; no two of its answers are the same."""

    def __init__(self, history: History, rng: random.Random) -> None:
        super().__init__()
        self._history = history
        self._rng = rng
        self._texts: dict[str, str] = {}
        """Each once, as every request brings the whole conversation again."""
        self.asked = 0

    async def _answer_or_see_client_go(
        self, body: Any, behaviour: Behaviour, reader: StreamReader, writer: StreamWriter
    ) -> None:
        self.requests.clear()
        self.asked += 1
        agent = str(body["model"]).removeprefix("model-of-")
        lines = tuple(self._once(line) for line in lines_of(body["messages"], instructions_of(agent)))
        call = ModelCall(self.asked, time.monotonic(), agent, lines)
        self._history.call(call)
        await asyncio.sleep(self._rng.uniform(0, LONGEST_ANSWER))
        # Some take longer than what a stream tells stays in memory alone, and are told elsewhere, too.
        pause = self._rng.uniform(0.05, 0.3) if self._rng.random() < LINGERS else 0.0
        answer = Behaviour(text=reply_to(call.text, call.number), chunks=3, pause=pause)
        await super()._answer_or_see_client_go(body, answer, reader, writer)

    def _once(self, line: Line) -> Line:
        return line._replace(text=self._texts.setdefault(line.text, line.text))


def lines_of(messages: Sequence[Mapping[str, Any]], instructions: str) -> list[Line]:
    """What was sent, however neighbouring messages of one side were joined."""
    first, *said = messages
    lines = [] if (first["role"], _content(first)) == ("system", instructions) else list(_lines([first]))
    for _, group in groupby(said, key=lambda message: message["role"]):
        lines += _lines(list(group))
    return lines


def _lines(messages: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    role, text = messages[0]["role"], "\n".join(_content(message) for message in messages)
    if role not in _SAID or not _SAID[role].fullmatch(text):
        yield Line(role, text)
    elif role == "user":
        yield from (Line(role, found[1], found[2]) for found in _MARKED.finditer(text))
    else:
        yield from (Line(role, found[0]) for found in _REPLY.finditer(text))


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
