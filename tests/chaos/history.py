"""What the clients did, what they were told, and what the model was asked: all that a run is judged by.

Times are seconds of the harness's monotonic clock, so they order everything that happened in its process.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.chaos.ledger import ToolRun


class Place(NamedTuple):
    """One session."""

    agent: str
    user: str
    session: str


def text_of(place: Place, number: int) -> str:
    """What a client says: unique in a run, without spaces, and it tells where it belongs."""
    return f"{place.agent}/{place.user}/{place.session}/{number}"


def place_of(text: str) -> Place | None:
    """None if no client said that."""
    found = re.fullmatch(r"([^\s/]+)/([^\s/]+)/([^\s/]+)/\d+", text)
    return Place(*found.groups()) if found else None


def reply_to(text: str, call: int) -> str:
    """What the model answers: it tells in which of its calls it did."""
    return f"reply {call} to {text}"


class Reply(NamedTuple):
    call: int
    text: str
    """What it answers."""


def parse_reply(reply: str) -> Reply | None:
    found = re.fullmatch(r"reply (\d+) to (\S+)", reply)
    return Reply(int(found[1]), found[2]) if found else None


def step_to(text: str, call: int) -> str:
    """What the model says beside the calls of tools."""
    return f"step {call} to {text}"


def key_of(text: str, call: int, number: int) -> str:
    """The argument of a tool call: unique, and it tells in which of the model's calls it was made."""
    return f"{text}#{call}.{number}"


def parse_step(said: str) -> Reply | None:
    found = re.fullmatch(r"step (\d+) to (\S+)", said)
    return Reply(int(found[1]), found[2]) if found else None


class Key(NamedTuple):
    text: str
    call: int
    number: int


def parse_key(key: str) -> Key | None:
    found = re.fullmatch(r"(\S+)#(\d+)\.(\d+)", key)
    return Key(found[1], int(found[2]), int(found[3])) if found else None


def arguments_of(key: str) -> str:
    # As every client of a model writes JSON anew, so that what is sent looks like what is stored.
    return json.dumps({"key": key}, separators=(",", ":"))


def key_in(arguments: str) -> str:
    """Of a call's arguments; '' if there is none."""
    try:
        value = json.loads(arguments)
    except ValueError:
        return ""
    return str(value.get("key", "")) if isinstance(value, dict) else ""


class ToolCall(NamedTuple):
    """As the model is sent it, and as it is stored."""

    id: str
    name: str
    arguments: str

    @property
    def key(self) -> str:
        return key_in(self.arguments)


class ToolResult(NamedTuple):
    call_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """How a turn ended, as a client was told."""

    turn_id: str
    state: str
    reply: str = ""
    reason: str | None = None


@dataclass(slots=True)
class Send:
    """One request that carried a message. Its effect on the store lies between its start and its end."""

    place: Place
    text: str
    start: float
    end: float = math.inf
    """Infinite while the request may still reach the store."""
    answer: Answer | None = None
    refusal: str | None = None
    """HTTP status and body of an answer that is no turn."""
    task: str | None = None
    """The turn that it answers, which had asked something."""


@dataclass(slots=True)
class Delete:
    """One request to delete a session, with the same meaning of start and end."""

    place: Place
    start: float
    end: float = math.inf
    found: bool | None = None
    """Whether there was a session to delete; None if nobody knows."""


class Line(NamedTuple):
    """One message that the model was sent."""

    role: str
    """user, assistant or tool; else it is what nobody should have sent."""
    text: str
    marker: str | None = None
    """Why the message was not answered, as the model is told."""
    calls: tuple[ToolCall, ...] = ()
    """By the assistant."""
    call_id: str | None = None
    """Whose result it is."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    number: int
    at: float
    agent: str
    """By the name of the model, of which each agent has its own."""
    lines: tuple[Line, ...]
    asks_for: tuple[tuple[str, str], ...] = ()
    """The tool calls that it was answered with: names and keys."""

    @property
    def text(self) -> str:
        """What was asked."""
        return next((line.text for line in reversed(self.lines) if line.role == "user"), "")


@dataclass(slots=True)
class PlaceHistory:
    place: Place
    sends: dict[str, list[Send]] = field(default_factory=lambda: defaultdict(list))
    """By text."""
    deletes: list[Delete] = field(default_factory=list)
    calls: list[ModelCall] = field(default_factory=list)
    """By what they were asked."""
    tool_runs: dict[str, list[ToolRun]] = field(default_factory=lambda: defaultdict(list))
    """By key."""

    def maybe_deleted(self, after: float, before: float) -> bool:
        """A deletion may have happened between these times."""
        return any(
            delete.found is not False and delete.end >= after and delete.start <= before
            for delete in self.deletes
        )

    def first_sent(self, text: str) -> float:
        """When; the beginning of time if nobody sent it."""
        return min((send.start for send in self.sends.get(text, [])), default=0.0)

    def surely_before(self, delete: Delete) -> set[str]:
        """The texts that nothing can have brought to the store after the deletion began."""
        return {text for text, sends in self.sends.items() if all(send.end < delete.start for send in sends)}

    def surely_after(self, text: str, delete: Delete) -> bool:
        """Nothing that carried the text can have reached the store before the deletion ended."""
        return text in self.sends and all(send.start > delete.end for send in self.sends[text])


class History:
    """Grows as the run goes on."""

    def __init__(self) -> None:
        self.places: dict[Place, PlaceHistory] = {}
        self.calls: dict[int, ModelCall] = {}
        self.strange_calls: list[ModelCall] = []
        """The model was asked what no client said."""
        self.strange_runs: list[ToolRun] = []
        """A tool was run as no client's message can have asked for."""
        self.sends = 0
        self.acknowledged = 0
        self._touched: set[Place] = set()

    def at(self, place: Place) -> PlaceHistory:
        self._touched.add(place)
        return self.places.setdefault(place, PlaceHistory(place))

    def send(self, send: Send) -> Send:
        self.sends += 1
        self.at(send.place).sends[send.text].append(send)
        return send

    def delete(self, delete: Delete) -> Delete:
        self.at(delete.place).deletes.append(delete)
        return delete

    def call(self, call: ModelCall) -> None:
        self.calls[call.number] = call
        place = place_of(call.text)
        if place is None or place not in self.places:
            self.strange_calls.append(call)
        else:
            self.at(place).calls.append(call)

    def tool_ran(self, run: ToolRun) -> None:
        key = parse_key(run.key)
        place = place_of(key.text) if key else None
        if place is None or place not in self.places:
            self.strange_runs.append(run)
        else:
            self.at(place).tool_runs[run.key].append(run)

    def take_touched(self) -> set[Place]:
        """The places where something happened since this was last asked, or still may happen."""
        touched, self._touched = self._touched, set()
        return touched

    def touch(self, places: Iterable[Place]) -> None:
        self._touched.update(places)
