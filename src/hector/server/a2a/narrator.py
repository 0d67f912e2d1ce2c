"""What a stream tells of a turn; pure, without I/O."""

from collections.abc import Iterator
from typing import assert_never

from hector.domain.events import (
    EventId,
    Summarizing,
    TextDelta,
    ThinkingDelta,
    Told,
    ToolFinished,
    ToolStarted,
    TurnEnded,
    TurnEvent,
    TurnReset,
    TurnStarted,
    TurnWaiting,
)
from hector.domain.ids import SessionKey
from hector.domain.messages import Text
from hector.domain.turns import Turn, TurnState
from hector.server.a2a import wire
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.wire import Json


class Narrator:
    """Turn events -> the JSON of A2A's stream: the task, then the reply as it grows, then the end.

    A piece of the reply without `append` replaces what came before: that was said before a tool was called.
    """

    def __init__(
        self, dialect: Dialect, key: SessionKey, turn_id: str, *, after: EventId | None = None
    ) -> None:
        """`after` is the place that an earlier stream of the same caller had reached."""
        self._dialect = dialect
        self._key = key
        self._turn_id = turn_id
        self._after = after
        """None once the stream is beyond it."""
        self._state: TurnState | None = None
        self._written: list[str] = []
        self._fresh = True
        """The next piece begins the reply anew."""
        self._half = ""
        """Of a surrogate pair that a provider cut in two; not every transport has a word for it."""

    def opening(self, state: TurnState) -> Json:
        """The first of a stream: the task before its end."""
        self._state = state
        status = wire.status(self._dialect, state)
        return {"task": wire.task_of(self._dialect, self._key, self._turn_id, status)}

    def whole(self, turn: Turn) -> Json:
        """A turn that had stopped before the stream began."""
        self._state = turn.state
        return {"task": wire.task(self._dialect, turn)}

    def tell(self, told: Told) -> Iterator[Json]:
        event, place = told
        if self._after and place:
            if place <= self._after:
                self._note(event)
                return
            other_attempt = place.attempt > self._after.attempt
            self._after = None
            if other_attempt and not isinstance(event, TurnReset):
                yield from self.begin_anew()
        yield from self._tell(event)

    def _note(self, event: TurnEvent) -> None:
        """The caller has been told."""
        match event:
            case TextDelta(text):
                if whole := self._made_whole(text):
                    self._write(whole)
            case ToolStarted():
                self._begin_reply()
            case _:
                pass  # it leaves no trace in what follows

    def _tell(self, event: TurnEvent) -> Iterator[Json]:
        match event:
            case TurnWaiting() | ThinkingDelta():
                return
            case TurnStarted():
                if self._state is not TurnState.WORKING:
                    yield self._working(None)
            case Summarizing():
                yield self._working({"memory": {"status": "summarizing"}})
            case TurnReset():
                yield from self.begin_anew()
            case TextDelta(text):
                if whole := self._made_whole(text):
                    yield self._piece(whole)
            case ToolStarted(call):
                self._begin_reply()
                yield self._working({"toolCall": {"id": call.id, "name": call.name, "status": "started"}})
            case ToolFinished(result):
                ended = "failed" if result.is_error else "finished"
                yield self._working(
                    {"toolCall": {"id": result.call_id, "name": result.name, "status": ended}}
                )
            case TurnEnded(turn):
                yield from self._ending(turn)
            case _:
                assert_never(event)

    def _working(self, metadata: Json | None) -> Json:
        self._state = TurnState.WORKING
        status = wire.status(self._dialect, TurnState.WORKING)
        return wire.status_update(
            self._dialect, self._key, self._turn_id, status, final=False, metadata=metadata
        )

    def begin_anew(self) -> Iterator[Json]:
        """What was said of the reply, also by an earlier stream, does not count."""
        self._written.clear()
        self._fresh, self._half = False, ""
        yield wire.artifact_update(
            self._dialect, self._key, self._turn_id, (Text(""),), append=False, last=False
        )

    def _begin_reply(self) -> None:
        self._fresh, self._half = True, ""

    def _made_whole(self, text: str) -> str:
        """With the half character that came before, without one at the end."""
        text = self._half + text
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return text[: len(text) - len(self._half)]

    def _piece(self, text: str) -> Json:
        append = self._write(text)
        return wire.artifact_update(
            self._dialect, self._key, self._turn_id, (Text(text),), append=append, last=False
        )

    def _write(self, text: str) -> bool:
        """Whether it goes behind what was said before."""
        append, self._fresh = not self._fresh, False
        if not append:
            self._written.clear()
        self._written.append(text)
        return append

    def _ending(self, turn: Turn) -> Iterator[Json]:
        parts = () if turn.state.paused else wire.reply_parts(turn)
        if self._after and not parts:
            # Of what the caller was told in part nothing is left, or nobody knows any more what it was.
            yield from self.begin_anew()
        if parts:
            streamed = list(parts) == [Text("".join(self._written))]
            yield wire.artifact_update(
                self._dialect,
                self._key,
                self._turn_id,
                # What was streamed needs only its end mark; anything else is replaced by what was stored.
                (Text(""),) if streamed else parts,
                append=streamed,
                last=True,
            )
        status = wire.status_of(self._dialect, turn)
        yield wire.status_update(
            self._dialect, self._key, self._turn_id, status, final=True, metadata=wire.why(turn)
        )
