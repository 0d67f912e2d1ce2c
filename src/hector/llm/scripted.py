"""A model that reads its lines, in this process and without delay: for tests, demonstrations and benchmarks.

What it says is decided by a script, a pure function of the request. Three come along, by name:

- `echo`    answers "You said: ..." to the newest message
- `recall`  knows what the messages that it is sent say, and nothing else: to a question it answers with the
            earlier line of the user that shares most words with it
- `obey`    does what the newest message of the user says, one order a line:

      say TEXT            answer
      data JSON           answer with data
      file NAME MEDIA_TYPE TEXT
                          answer with a file of that text, or with its URL, if the text is one
      stream N TEXT       answer in N pieces
      think TEXT          think aloud first
      call TOOL JSON      call a tool; neighbouring calls are made at once; what follows, after the results
      wait GATE           until the test opens that gate
      pause SECONDS
      fail KIND           auth, unreachable, request, context or unavailable
      fail rate_limit [SECONDS]

Asked for a summary, each gives the user's lines. A message to `obey` without orders is echoed. Orders may
also be given beforehand, by the start of messages' ids, for those who send none, such as suites of tests.
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TypeAlias, assert_never, cast

from hector.domain.errors import (
    ContextTooLongError,
    ModelAuthError,
    ModelError,
    ModelRateLimitError,
    ModelRequestError,
    ModelUnavailableError,
    ModelUnreachableError,
)
from hector.domain.events import TextDelta, ThinkingDelta
from hector.domain.messages import (
    Data,
    File,
    JsonValue,
    Message,
    ModelMessage,
    ModelPart,
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from hector.domain.models import ModelEvent, ModelReply, ModelRequest


@dataclass(frozen=True, slots=True)
class Say:
    text: str
    pieces: int = 1
    """How many deltas the text comes in where it is streamed."""


@dataclass(frozen=True, slots=True)
class Show:
    part: Data | File


@dataclass(frozen=True, slots=True)
class Think:
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    tool: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class Wait:
    gate: str


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Fail:
    error: ModelError


Line: TypeAlias = Say | Show | Think | Call | Wait | Pause | Fail
Script: TypeAlias = Callable[[ModelRequest], Sequence[Line]]
"""What is said in answer to one request, in order."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Where a script waits. `reached` is set when it does, and it goes on once `opened` is."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)


class ScriptedModel:
    """A `Model` that follows a script."""

    context_window: int | None = None

    def __init__(self, script: Script, *, name: str = "scripted") -> None:
        self.name = name
        self._script = script
        self._gates: dict[str, Gate] = {}
        self.requests: deque[ModelRequest] = deque(maxlen=100)
        """The newest, oldest first."""
        self.running = 0
        """How many answers are being given."""

    def gate(self, name: str) -> Gate:
        return self._gates.setdefault(name, Gate())

    async def respond(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        self.requests.append(request)
        self.running += 1
        parts: list[ModelPart] = []
        try:
            for line in self._script(request):
                match line:
                    case Say(text=text):
                        for piece in _pieces(line) if request.stream else ():
                            yield TextDelta(piece)
                        parts.append(Text(text))
                    case Show(part=part):
                        parts.append(part)
                    case Think(text=text):
                        if request.stream:
                            yield ThinkingDelta(text)
                        parts.append(Thinking(text))
                    case Call(tool=tool, arguments=arguments):
                        # Unlike those before it in the conversation, as a provider's ids are.
                        call_id = f"call_{len(request.messages)}_{len(parts)}"
                        parts.append(ToolCall(call_id, tool, arguments))
                    case Wait(gate=name):
                        gate = self.gate(name)
                        gate.reached.set()
                        await gate.opened.wait()
                    case Pause(seconds=seconds):
                        await asyncio.sleep(seconds)
                    case Fail(error=error):
                        raise error
                    case _:
                        assert_never(line)
            message = ModelMessage(tuple(parts))
            yield ModelReply(message, Usage(sum(map(_words, request.messages)), _words(message)))
        finally:
            self.running -= 1

    async def warm_up(self) -> None:
        return

    async def close(self) -> None:
        return


def scripted_model(name: str, orders: Mapping[str, str] | None = None) -> ScriptedModel:
    """By the name of a script, '' for `echo`. Raises `ModelUnavailableError`.

    `orders` for `obey` are by the start of a message's id; the longest start that fits counts.
    """
    script = SCRIPTS.get(name or "echo")
    if script is None:
        raise ModelUnavailableError(f"no script is named {name!r} (known: {', '.join(SCRIPTS)})")
    told = partial(obey, beforehand=orders) if orders else script

    def keeping_notes(request: ModelRequest) -> Sequence[Line]:
        return notes(request) if request.output_schema is not None else told(request)

    return ScriptedModel(keeping_notes, name=name or "echo")


def notes(request: ModelRequest) -> Sequence[Line]:
    """What is wanted in JSON is a summary."""
    newest = request.messages[-1]
    return [Say(noted(newest.text if isinstance(newest, UserMessage) else ""))]


def noted(told: str) -> str:
    """Of the notes so far, and the first lines of what the user said since."""
    starts = ("- ", "User: ")
    lines = told.splitlines()
    facts = [line.removeprefix(start) for line in lines for start in starts if line.startswith(start)]
    return json.dumps({"gist": "", "facts": facts, "decisions": [], "open_questions": []})


def in_order(*answers: Line | Sequence[Line]) -> Script:
    """The given answers, one for each request; an error once they are used up."""
    left = iter(answers)

    def script(request: ModelRequest) -> Sequence[Line]:
        answer = next(left, None)
        if answer is None:
            return [
                Fail(ModelRequestError(f"the script has {len(answers)} answers and was asked for one more"))
            ]
        return answer if isinstance(answer, Sequence) else [answer]

    return script


def echo(request: ModelRequest) -> Sequence[Line]:
    return [Say(_echoed(request.messages[-1]))]


def recall(request: ModelRequest) -> Sequence[Line]:
    *earlier, newest = [message.text for message in request.messages if isinstance(message, UserMessage)]
    lines = [line.removeprefix("- ") for text in earlier for line in text.splitlines()]
    return [Say(recalled([*lines, newest]))]


def obey(request: ModelRequest, *, beforehand: Mapping[str, str] | None = None) -> Sequence[Line]:
    """`beforehand`: what messages are taken to say whose ids begin so."""
    start = max(n for n, message in enumerate(request.messages) if isinstance(message, UserMessage))
    told = request.messages[start]
    text = _given(beforehand or {}, request.message_id) or (
        told.text if isinstance(told, UserMessage) else ""
    )
    orders = [_order(line) for line in text.splitlines() if line.strip()]
    answers = _split_after_calls([line for line in orders if line is not None])
    given = sum(isinstance(message, ModelMessage) for message in request.messages[start:])
    return answers[given] if given < len(answers) else echo(request)


SCRIPTS: Mapping[str, Script] = {"echo": echo, "recall": recall, "obey": obey}


def recalled(lines: Sequence[str]) -> str:
    """What `recall` answers to the last of the user's lines, knowing the ones before it."""
    *earlier, newest = lines
    if not newest.rstrip().endswith("?"):
        return f"Got it: {newest}"
    wanted = _content_words(newest)
    told = [line for line in earlier if not line.rstrip().endswith("?")]
    # Of two that share as many words the later one counts: people correct themselves.
    best = max(reversed(told), key=lambda line: len(wanted & _content_words(line)), default="")
    return f"You told me: {best}" if wanted & _content_words(best) else "I do not know."


_NO_CONTENT = frozenset(
    re.findall(
        r"\w+",
        "a an and are did do does for how i in is it me my of on or please remember tell that the this to was"
        " what when where which who you your",
    )
)


def _content_words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold())) - _NO_CONTENT


def _given(orders: Mapping[str, str], message_id: str | None) -> str | None:
    starts = [start for start in orders if (message_id or "").startswith(start)]
    return orders[max(starts, key=len)] if starts else None


def _echoed(message: Message) -> str:
    match message:
        case ToolMessage(result=result):
            return f"{result.name} said: {result.text}"
        case UserMessage() | ModelMessage():
            return f"You said: {message.text}"
        case _:
            assert_never(message)


def _pieces(line: Say) -> Iterable[str]:
    """As even as can be, and never more than the text has characters."""
    count = min(line.pieces, len(line.text))
    ends = [round(n * len(line.text) / count) for n in range(count + 1)] if count else []
    return (line.text[start:end] for start, end in pairwise(ends))


def _words(message: Message) -> int:
    """A stand-in for tokens."""
    return sum(len(part.text.split()) for part in message.parts if isinstance(part, Text))


def _split_after_calls(lines: Iterable[Line]) -> Sequence[Sequence[Line]]:
    answers: list[list[Line]] = [[]]
    for line in lines:
        if answers[-1] and isinstance(answers[-1][-1], Call) and not isinstance(line, Call):
            answers.append([])
        answers[-1].append(line)
    return answers if answers[0] else []


_FAILURES: Mapping[str, type[ModelError]] = {
    "auth": ModelAuthError,
    "unreachable": ModelUnreachableError,
    "request": ModelRequestError,
    "context": ContextTooLongError,
    "unavailable": ModelUnavailableError,
}


def _json(text: str) -> JsonValue:
    try:
        return cast(JsonValue, json.loads(text))
    except ValueError:
        return None


def _file(name: str, media_type: str, content: str) -> File:
    if _URL.fullmatch(content):
        return File(media_type, name, url=content)
    return File(media_type, name, data=content.encode())


_URL = re.compile(r"https?://\S+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _order(line: str) -> Line | None:
    word, _, rest = line.strip().partition(" ")
    match word, rest.split(maxsplit=1):
        case "say", _:
            return Say(rest)
        case "stream", [count, text] if count.isdecimal():
            return Say(text, pieces=int(count))
        case "data", _ if (value := _json(rest)) is not None:
            return Show(Data(value))
        case "file", [name, described]:
            media_type, _, content = described.partition(" ")
            return Show(_file(name, media_type, content))
        case "think", _:
            return Think(rest)
        case "call", [tool, *arguments]:
            return Call(tool, *arguments)
        case "wait", [gate]:
            return Wait(gate)
        case "pause", [seconds] if _NUMBER.fullmatch(seconds):
            return Pause(float(seconds))
        case "fail", ["rate_limit"]:
            return Fail(ModelRateLimitError("the script says rate_limit"))
        case "fail", ["rate_limit", seconds] if _NUMBER.fullmatch(seconds):
            return Fail(ModelRateLimitError("the script says rate_limit", retry_after=float(seconds)))
        case "fail", [kind] if kind in _FAILURES:
            return Fail(_FAILURES[kind](f"the script says {kind}"))
        case _:
            return None
