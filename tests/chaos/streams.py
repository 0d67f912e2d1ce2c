"""A reply as a client puts it together from streams, of which each may break and go on at another server."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

from tests.chaos.history import Answer
from tests.chaos.runs import PAUSED
from tests.chaos.servers import parse_task, question_in

_ENDED = PAUSED | {"completed", "failed", "canceled", "rejected"}


class Block(NamedTuple):
    """One server-sent event."""

    kind: str
    id: str | None
    data: Any


@dataclass(slots=True)
class Reading:
    """What a client has got so far."""

    text: str = ""
    place: str | None = None
    """The id of the last event that had one."""
    task: str | None = None
    answer: Answer | None = None
    error: str | None = None
    """The body of an error event: nobody knows how it ended."""
    faults: list[str] = field(default_factory=list)
    """What no stream may tell."""
    pieces: int = 0
    resets: int = 0
    reconnects: int = 0

    def take(self, block: Block) -> None:
        if block.kind == "error":
            self.error = json.dumps(block.data)
            return
        if block.id:
            self._advance(block.id)
        match block.data:
            case {"task": task}:
                self._take_task(task)
            case {"artifactUpdate": update}:
                self._take_piece(update, numbered=block.id is not None)
            case {"statusUpdate": update}:
                self._take_status(update)
            case other:
                self.faults.append(f"a stream told {other}")

    def _advance(self, new: str) -> None:
        attempt, number = _numbers(new)
        if self.place and self.place.startswith(f"{self.task}."):
            last_attempt, last_number = _numbers(self.place)
            follows = attempt == last_attempt and number == last_number + 1
            # The start of a run shows nothing where its task works already.
            begins = number <= 2 and (attempt > last_attempt or last_number == 0)
            if not (follows or begins):
                self.faults.append(f"event {new} came after {self.place}")
        self.place = new

    def _take_task(self, task: Any) -> None:
        answer = parse_task(task)
        if self.task not in (None, answer.turn_id):
            # A message that failed is tried again under another task.
            self.text = ""
        self.task = answer.turn_id
        if answer.state in _ENDED:
            self.text, self.answer = answer.reply, answer

    def _take_piece(self, update: Any, *, numbered: bool) -> None:
        new = "".join(part["text"] for part in update["artifact"]["parts"])
        self.pieces += numbered
        if not update.get("append"):
            # Another text in its place is what came after a tool was called.
            self.resets += bool(self.text) and not new
            self.text = ""
        self.text += new

    def _take_status(self, update: Any) -> None:
        state = str(update["status"]["state"]).removeprefix("TASK_STATE_").lower()
        if state in _ENDED:
            reason = update.get("metadata", {}).get("reason")
            reply = self.text if state == "completed" else ""
            if state in PAUSED:
                reply = question_in(update["status"])
            self.answer = Answer(update["taskId"], state, reply, reason)


def _numbers(place: str) -> tuple[int, int]:
    _, attempt, number = place.rsplit(".", 2)
    return int(attempt), int(number)


async def blocks(response: httpx.Response) -> AsyncIterator[Block]:
    kind, id_, data = "message", None, ""
    async for line in response.aiter_lines():
        if not line:
            if data:
                yield Block(kind, id_, json.loads(data))
            kind, id_, data = "message", None, ""
            continue
        name, _, value = line.partition(": ")
        match name:
            case "event":
                kind = value
            case "id":
                id_ = value
            case "data":
                data = value
            case _:
                pass  # a comment
