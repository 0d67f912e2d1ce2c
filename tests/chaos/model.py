"""The model behind the servers: it records what it is asked, takes a random while, and answers."""

import asyncio
import random
import re
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, takewhile
from typing import Any

from tests.chaos.history import (
    History,
    Line,
    ModelCall,
    ToolCall,
    arguments_of,
    key_of,
    reply_to,
    step_to,
)
from tests.chaos.ledger import ASKS
from tests.fakes.openai_server import Behaviour, FakeOpenAI

LONGEST_ANSWER = 0.03
"""Seconds."""

LINGERS = 0.15
"""How many answers are streamed slowly."""

CALLS = 0.35
"""How many answers are calls of tools."""
_OTHERS = 4
"""How much more often any other tool is called than the one that asks the user."""
MOST_STEPS = 2
"""Such answers in a row."""

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
        tools = [tool["function"]["name"] for tool in body.get("tools", ())]
        names = self._choose(tools) if _steps(lines) < MOST_STEPS else []
        call = ModelCall(self.asked, time.monotonic(), agent, lines)
        keys = [key_of(call.text, call.number, number) for number in range(1, len(names) + 1)]
        call = replace(call, asks_for=tuple(zip(names, keys, strict=True)))
        self._history.call(call)
        await asyncio.sleep(self._rng.uniform(0, LONGEST_ANSWER))
        await super()._answer_or_see_client_go(body, self._answer_of(call), reader, writer)

    def _choose(self, tools: Sequence[str]) -> list[str]:
        """Those to be called."""
        if not tools or self._rng.random() > CALLS:
            return []
        weights = [1 if tool == ASKS else _OTHERS for tool in tools]
        return self._rng.choices(tools, weights, k=self._rng.choice((1, 1, 2)))

    def _answer_of(self, call: ModelCall) -> Behaviour:
        # Some take longer than what a stream tells stays in memory alone, and are told elsewhere, too.
        pause = self._rng.uniform(0.05, 0.3) if self._rng.random() < LINGERS else 0.0
        if not call.asks_for:
            return Behaviour(text=reply_to(call.text, call.number), chunks=3, pause=pause)
        # Without ids of its own: what it calls is numbered anew in each answer, as some models do.
        calls = [{"name": name, "arguments": arguments_of(key)} for name, key in call.asks_for]
        text = step_to(call.text, call.number) if self._rng.random() < 0.5 else None
        return Behaviour(text=text, calls=calls, chunks=3, pause=pause)

    def _once(self, line: Line) -> Line:
        return line._replace(text=self._texts.setdefault(line.text, line.text))


def _steps(lines: Sequence[Line]) -> int:
    """How often the model has called tools since the user last spoke."""
    since = takewhile(lambda line: line.role != "user", reversed(lines))
    return sum(bool(line.calls) for line in since)


def lines_of(messages: Sequence[Mapping[str, Any]], instructions: str) -> list[Line]:
    """What was sent, however neighbouring messages of one side were joined."""
    first, *said = messages
    lines = [] if (first["role"], _content(first)) == ("system", instructions) else list(_lines([first]))
    for _, group in groupby(said, key=_side):
        lines += _lines(list(group))
    return lines


def _side(message: Mapping[str, Any]) -> tuple[str, int]:
    """One for messages that may be joined."""
    apart = "tool_calls" in message or message["role"] == "tool"
    return message["role"], id(message) if apart else 0


def _lines(messages: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    message = messages[0]
    role, text = message["role"], "\n".join(_content(message) for message in messages)
    if calls := message.get("tool_calls"):
        yield Line(role, text, calls=tuple(map(_call, calls)))
    elif role == "tool":
        yield Line(role, text, call_id=message["tool_call_id"])
    elif role not in _SAID or not _SAID[role].fullmatch(text):
        # What the agent asked for a tool, or what nobody should have sent.
        yield Line(role, text)
    elif role == "user":
        yield from (Line(role, found[1], found[2]) for found in _MARKED.finditer(text))
    else:
        yield from (Line(role, found[0]) for found in _REPLY.finditer(text))


def _call(call: Mapping[str, Any]) -> ToolCall:
    return ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
