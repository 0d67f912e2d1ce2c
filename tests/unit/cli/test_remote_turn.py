"""What other servers tell becomes events and a turn like our own."""

from typing import Any

from a2a.types import (
    Artifact,
    Message,
    Part,
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value

from hector.cli.remote_turn import RemoteTurn
from hector.domain.events import Summarizing, TextDelta, ToolStarted
from hector.domain.ids import SessionKey
from hector.domain.turns import TurnState


def a_turn() -> RemoteTurn:
    return RemoteTurn(SessionKey("", "", ""))


def task(state: TaskState = TaskState.TASK_STATE_WORKING, **more: Any) -> StreamResponse:
    return StreamResponse(task=Task(id="t", context_id="s", status=TaskStatus(state=state), **more))


def piece(text: str, *, append: bool = True, artifact: str = "r") -> StreamResponse:
    made = Artifact(artifact_id=artifact, parts=[Part(text=text)])
    return StreamResponse(artifact_update=TaskArtifactUpdateEvent(artifact=made, append=append))


def status(state: TaskState, said: str = "", **metadata: Any) -> StreamResponse:
    made = TaskStatus(state=state)
    if said:
        made.message.CopyFrom(Message(parts=[Part(text=said)]))
    update = TaskStatusUpdateEvent(status=made, metadata=ParseDict(metadata, Struct()))
    return StreamResponse(status_update=update)


def shown(turn: RemoteTurn, *events: StreamResponse) -> str:
    told = [news for event in events for news in turn.take(event)]
    return "".join(news.text if isinstance(news, TextDelta) else "|" for news in told)


def test_a_stream_is_told_piece_by_piece() -> None:
    turn = a_turn()
    assert shown(turn, task(), piece("a", append=False), piece("b")) == "ab"
    assert shown(turn, piece(""), status(TaskState.TASK_STATE_COMPLETED)) == ""
    assert turn.ended
    found = turn.turn()
    assert (found.id, found.key.session_id, found.state, found.reply) == ("t", "s", TurnState.COMPLETED, "ab")


def test_a_stream_that_begins_again_is_told_from_where_it_broke() -> None:
    turn = a_turn()
    assert shown(turn, task(), piece("abc", append=False)) == "abc"
    assert shown(turn, task(), piece("a", append=False), piece("bc"), piece("de")) == "de"


def test_another_text_is_left_to_the_end() -> None:
    turn = a_turn()
    assert shown(turn, task(), piece("abc", append=False), piece("", append=False), piece("xyz0")) == "abc"
    shown(turn, status(TaskState.TASK_STATE_COMPLETED))
    assert turn.turn().reply == "xyz0"


def test_what_is_said_after_a_tool_stands_alone() -> None:
    turn = a_turn()
    started = status(TaskState.TASK_STATE_WORKING, toolCall={"id": "1", "name": "clock", "status": "started"})
    told = list(turn.take(started))
    assert [type(news) for news in told] == [ToolStarted]
    turn = a_turn()
    assert shown(turn, piece("Let me see", append=False), started, piece("Noon.", append=False)) == (
        "Let me see|Noon."
    )
    assert shown(turn, started) == "", "it was told before the stream broke"
    shown(turn, status(TaskState.TASK_STATE_COMPLETED))
    assert turn.turn().reply == "Noon."


def test_that_it_is_summarised_first_is_told() -> None:
    turn = a_turn()
    summarizing = status(TaskState.TASK_STATE_WORKING, memory={"status": "summarizing"})
    assert list(turn.take(summarizing)) == [Summarizing()]
    assert list(turn.take(status(TaskState.TASK_STATE_WORKING, memory={"status": "new"}))) == []


def test_artifacts_are_one_reply() -> None:
    turn = a_turn()
    artifacts = [
        Artifact(artifact_id="1", parts=[Part(text="a")]),
        Artifact(artifact_id="2", parts=[Part(url="http://x/y.png"), Part(data=Value(number_value=3))]),
    ]
    assert shown(turn, task(TaskState.TASK_STATE_COMPLETED, artifacts=artifacts)).startswith("a\n[file http")
    assert turn.ended


def test_a_message_is_an_answer_without_a_task() -> None:
    turn = a_turn()
    message = Message(context_id="s", parts=[Part(text="hi")])
    assert shown(turn, StreamResponse(message=message)) == "hi"
    assert (turn.ended, turn.turn_id, turn.turn().key.session_id) == (True, "", "s")


def test_a_task_is_known_by_its_updates_where_it_is_not_told_itself() -> None:
    begins = TaskStatusUpdateEvent(task_id="t", context_id="s")
    grows = TaskArtifactUpdateEvent(task_id="t", context_id="s")
    for update in (StreamResponse(status_update=begins), StreamResponse(artifact_update=grows)):
        turn = a_turn()
        shown(turn, update, status(TaskState.TASK_STATE_INPUT_REQUIRED, "which?"))
        assert (turn.turn_id, turn.turn().key.session_id) == ("t", "s")


def test_an_answer_may_stand_in_the_last_status() -> None:
    turn = a_turn()
    shown(turn, task(), status(TaskState.TASK_STATE_COMPLETED, "done"))
    assert turn.turn().reply == "done"
    turn = a_turn()
    shown(turn, task(), piece("the answer", append=False), status(TaskState.TASK_STATE_COMPLETED, "done"))
    assert turn.turn().reply == "the answer"


def test_a_question_and_a_failure_say_why() -> None:
    turn = a_turn()
    shown(turn, task(), status(TaskState.TASK_STATE_INPUT_REQUIRED, "which?"))
    assert (turn.ended, turn.turn().reply, turn.turn().error) == (True, "which?", None)
    shown(turn, status(TaskState.TASK_STATE_FAILED, "it broke", reason="model_error", retryable=True))
    found = turn.turn()
    assert (found.error, found.reason, found.retryable, found.reply) == ("it broke", "model_error", True, "")
