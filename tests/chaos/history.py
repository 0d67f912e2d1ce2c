"""What the clients did, what they were told, and what the model was asked: all that a run is judged by.

Times are seconds of the harness's monotonic clock, so they order everything that happened in its process.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


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
    """user or assistant; else it is what nobody should have sent."""
    text: str
    marker: str | None = None
    """Why the message was not answered, as the model is told."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    number: int
    at: float
    agent: str
    """By the name of the model, of which each agent has its own."""
    lines: tuple[Line, ...]

    @property
    def text(self) -> str:
        """What was asked."""
        return self.lines[-1].text if self.lines else ""


@dataclass(slots=True)
class PlaceHistory:
    place: Place
    sends: dict[str, list[Send]] = field(default_factory=lambda: defaultdict(list))
    """By text."""
    deletes: list[Delete] = field(default_factory=list)
    calls: list[ModelCall] = field(default_factory=list)
    """By what they were asked."""

    def maybe_deleted(self, after: float, before: float) -> bool:
        """A deletion may have happened between these times."""
        return any(
            delete.found is not False and delete.end >= after and delete.start <= before
            for delete in self.deletes
        )

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

    def take_touched(self) -> set[Place]:
        """The places where something happened since this was last asked, or still may happen."""
        touched, self._touched = self._touched, set()
        return touched

    def touch(self, places: Iterable[Place]) -> None:
        self._touched.update(places)
