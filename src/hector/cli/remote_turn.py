"""What a server tells of a task -> events and a turn like our own; pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from a2a.types import Part, StreamResponse, Task, TaskState, TaskStatus
from google.protobuf.json_format import MessageToDict, MessageToJson

from hector.domain.events import Summarizing, TextDelta, ToolStarted, TurnEvent
from hector.domain.ids import SessionKey
from hector.domain.messages import ModelMessage, StoredMessage, Text, ToolCall
from hector.domain.turns import Turn, TurnState

_OVER = frozenset(
    {
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_REJECTED,
        TaskState.TASK_STATE_INPUT_REQUIRED,
        TaskState.TASK_STATE_AUTH_REQUIRED,
    }
)
_ANSWERED = frozenset({TurnState.COMPLETED, TurnState.INPUT_REQUIRED})


@dataclass(slots=True)
class RemoteTurn:
    """Takes the events of one stream after another, each of which may begin from the start."""

    key: SessionKey
    turn_id: str = ""
    """'' until it is known, and of servers that keep no tasks."""
    ended: bool = False
    """Or it waits for somebody."""
    _status: TaskStatus = field(default_factory=TaskStatus)
    _metadata: Mapping[str, Any] = field(default_factory=dict)
    _artifacts: dict[str, str] = field(default_factory=dict)
    """By artifact id; the reply is all of them."""
    _shown: str = ""
    """Of the reply."""
    _calls: set[str] = field(default_factory=set)

    def take(self, event: StreamResponse) -> Iterator[TurnEvent]:
        """What is new for who watches."""
        match event.WhichOneof("payload"):
            case "task":
                self._take_task(event.task)
            case "message":
                # Of servers that answer at once, and keep no task.
                self._identify("", event.message.context_id)
                self._take_parts("message", event.message.parts, append=False)
                self._take_status(TaskStatus(state=TaskState.TASK_STATE_COMPLETED), {})
            case "artifact_update":
                update = event.artifact_update
                self._identify(update.task_id, update.context_id)
                self._take_parts(update.artifact.artifact_id, update.artifact.parts, append=update.append)
            case "status_update":
                told = event.status_update
                # Some servers never tell the task itself.
                self._identify(told.task_id, told.context_id)
                metadata = MessageToDict(told.metadata)
                yield from self._work_of(metadata)
                self._take_status(told.status, metadata)
            case _:
                pass
        text = self._text()
        # Otherwise it is told from its start again, or is another one now: then the end shows it whole.
        if len(text) > len(self._shown) and text.startswith(self._shown):
            yield TextDelta(text[len(self._shown) :])
            self._shown = text

    def turn(self) -> Turn:
        """As it stands."""
        state = TurnState[TaskState.Name(self._status.state).removeprefix("TASK_STATE_")]
        said = "".join(map(_shown, self._status.message.parts))
        reply = said if state.paused else self._text()
        if state is TurnState.COMPLETED:
            reply = reply or said  # where servers without artifacts put their answer
        return Turn(
            self.turn_id,
            self.key,
            state,
            reason=self._metadata.get("reason"),
            error=said or None if state not in _ANSWERED else None,
            retryable=self._metadata.get("retryable") is True,
            messages=(StoredMessage(ModelMessage((Text(reply),)), 1, self.turn_id),) if reply else (),
        )

    def _take_task(self, task: Task) -> None:
        self._identify(task.id, task.context_id)
        for artifact in task.artifacts:
            self._take_parts(artifact.artifact_id, artifact.parts, append=False)
        self._take_status(task.status, MessageToDict(task.metadata))

    def _identify(self, turn_id: str, context_id: str) -> None:
        self.turn_id = turn_id or self.turn_id
        if context_id:
            self.key = SessionKey(self.key.agent_id, self.key.user_id, context_id)

    def _take_status(self, status: TaskStatus, metadata: Mapping[str, Any]) -> None:
        self._status, self.ended = status, status.state in _OVER
        self._metadata = metadata or self._metadata

    def _take_parts(self, artifact_id: str, parts: Iterable[Part], *, append: bool) -> None:
        before = self._artifacts.get(artifact_id, "") if append else ""
        self._artifacts[artifact_id] = before + "".join(map(_shown, parts))

    def _work_of(self, metadata: Mapping[str, Any]) -> Iterator[TurnEvent]:
        """Hector tells of the tools that it runs; what is said after that stands alone."""
        match metadata.get("toolCall"):
            case {"id": str(call_id), "name": str(name), "status": "started"} if call_id not in self._calls:
                self._calls.add(call_id)
                self._artifacts.clear()
                self._shown = ""
                yield ToolStarted(ToolCall(call_id, name, ""))
            case _:
                pass
        if metadata.get("memory") == {"status": "summarizing"}:
            yield Summarizing()

    def _text(self) -> str:
        return "\n".join(self._artifacts.values())


def _shown(part: Part) -> str:
    match part.WhichOneof("content"):
        case "text":
            return part.text
        case "raw" | "url":
            return f"[file {part.filename or part.url or part.media_type}]"
        case "data":
            return MessageToJson(part.data, indent=2)
        case _:
            return ""
