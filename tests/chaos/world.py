"""Hand-made histories and rows of one session, in which nothing is wrong until a test damages them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.anomalies import Kind
from tests.chaos.checker import Checker
from tests.chaos.database import AGENT, NEITHER, USER, MessageRow, PlaceRows, SessionRow, Snapshot, TurnRow
from tests.chaos.history import (
    Answer,
    Delete,
    History,
    Line,
    ModelCall,
    Place,
    Send,
    ToolCall,
    ToolResult,
    arguments_of,
    key_of,
    reply_to,
    step_to,
    text_of,
)
from tests.chaos.ledger import ASKS, SIDE_EFFECTS, ToolRun

HERE = Place("ant", "una", "s")
ELSEWHERE = Place("ant", "uwe", "s")
ONE, TWO, THREE, FOUR, FIVE, NEVER, SIX, SEVEN, EIGHT, NINE, TEN, ELEVEN = (
    text_of(HERE, number) for number in range(1, 13)
)


@dataclass
class World:
    """One session: answered, crashed, crashed and taken again, and two that waited for their turn."""

    history: History = field(default_factory=History)
    rows: PlaceRows = field(default_factory=PlaceRows)
    checker: Checker = field(default_factory=Checker)

    def __post_init__(self) -> None:
        self.rows.session = SessionRow(10, 2, 0, None, None)
        one = [Line("user", ONE), Line("assistant", reply_to(ONE, 1))]
        two = [*one, Line("user", TWO, "crashed")]
        three = [*two, Line("user", THREE), Line("assistant", reply_to(THREE, 4))]
        four = [*three, Line("user", FOUR), Line("assistant", reply_to(FOUR, 5))]
        self._turn("A", ONE, 1, at=1, before=[], call=1)
        self._turn("B", TWO, 3, at=3, before=one, call=2, crashed=True)
        self._turn("C", THREE, 4, at=5, before=two, call=3, crashed=True, superseded=True)
        self._turn("D", THREE, 5, at=7, before=two, call=4, retry=1)
        self._turn("E", FOUR, 7, at=9, before=three, call=5, ticket=1)
        self._turn("F", FIVE, 9, at=9, before=four, call=6, ticket=2)

    def _turn(
        self,
        turn: str,
        text: str,
        seq: int,
        *,
        at: float,
        before: list[Line],
        call: int,
        crashed: bool = False,
        superseded: bool = False,
        retry: int = 0,
        ticket: int | None = None,
    ) -> None:
        answer = (
            Answer(turn, "failed", reason="crashed")
            if crashed
            else Answer(turn, "completed", reply_to(text, call))
        )
        self.history.send(Send(HERE, text, at, at + 1, answer))
        self.history.call(ModelCall(call, at + 0.5, HERE.agent, (*before, Line("user", text))))
        reason, last = ("crashed", seq) if crashed else (None, seq + 1)
        self.rows.turns[turn] = TurnRow(turn, answer.state, reason, superseded, seq, last, None, 1)
        mark = "superseded" if superseded else reason
        number = text.rpartition("/")[2]
        self.rows.messages.append(MessageRow(turn, seq, number, retry, USER, text, ticket, None, mark))
        if not crashed:
            said = answer.reply
            self.rows.messages.append(MessageRow(turn, last, None, 0, AGENT, said, None, None, None))

    def check(self, *, since: float = 100.0) -> set[Kind]:
        snapshot = Snapshot(since, since + 1, {HERE: self.rows}, [])
        return {anomaly.kind for anomaly in self.checker.check(self.history, snapshot, final=True)}

    # --- more turns

    def asks(
        self,
        turn: str,
        text: str,
        seq: int,
        *,
        at: float,
        mark: str | None = None,
        run_state: str | None = None,
        task: str | None = None,
    ) -> None:
        self.send(text, at, at + 1).task = task
        number = text.rpartition("/")[2]
        self.rows.messages.append(MessageRow(turn, seq, number, 0, USER, text, None, run_state, mark))

    def calls(
        self,
        turn: str,
        text: str,
        seq: int,
        tools: Sequence[str],
        *,
        call: int,
        before: Sequence[Line],
        mark: str | None = None,
    ) -> tuple[ToolCall, ...]:
        """The model calls tools, and they run."""
        keys = [key_of(text, call, number) for number in range(1, len(tools) + 1)]
        asked = tuple(zip(tools, keys, strict=True))
        at = self.history.places[HERE].sends[text][0].start + 0.5
        self.history.call(ModelCall(call, at, HERE.agent, tuple(before), asked))
        calls = tuple(ToolCall(f"call_{n}", tool, arguments_of(key)) for n, (tool, key) in enumerate(asked))
        harmless = tuple(tool not in SIDE_EFFECTS for tool in tools)
        row = MessageRow(turn, seq, None, 0, AGENT, step_to(text, call), None, None, mark, calls, harmless)
        self.rows.messages.append(row)
        for tool, key in asked:
            self.runs(tool, key, at=at + 0.1)
        return calls

    def runs(self, tool: str, key: str, *, at: float, run: str = "a1") -> None:
        self.history.tool_ran(ToolRun(tool, key, run, 7, at))

    def returns(self, turn: str, seq: int, call: ToolCall, *, mark: str | None = None) -> None:
        result = ToolResult(call.id, result_of(call))
        self.rows.messages.append(
            MessageRow(turn, seq, None, 0, NEITHER, "", None, None, mark, result=result)
        )

    def pauses(
        self, turn: str, text: str, seq: int, *, call: int, before: Sequence[Line], mark: str | None = None
    ) -> list[Line]:
        """A tool asks the user; what the model is to be sent of it."""
        calls = self.calls(turn, text, seq, [ASKS], call=call, before=before, mark=mark)
        (asking,) = calls
        self.returns(turn, seq + 1, asking, mark=mark)
        question = question_of(asking)
        self.rows.messages.append(MessageRow(turn, seq + 2, None, 0, AGENT, question, None, None, mark))
        result = Line("tool", result_of(asking), call_id=asking.id)
        return [Line("assistant", step_to(text, call), calls=calls), result, Line("assistant", question)]

    def ends(self, turn: str, text: str, first: int, last: int, answer: Answer) -> None:
        self.history.places[HERE].sends[text][0].answer = answer
        self.rows.turns[turn] = TurnRow(turn, answer.state, answer.reason, False, first, last, None, 1)

    # --- what goes wrong

    def session(self, **changes: Any) -> None:
        assert self.rows.session
        self.rows.session = self.rows.session._replace(**changes)

    def turn(self, turn: str, **changes: Any) -> None:
        self.rows.turns[turn] = self.rows.turns[turn]._replace(**changes)

    def message(self, at: int, **changes: Any) -> None:
        place = next(n for n, row in enumerate(self.rows.messages) if row.seq == at)
        self.rows.messages[place] = self.rows.messages[place]._replace(**changes)

    def call(self, number: int, *lines: Line) -> None:
        """Sent other lines than it was."""
        calls = self.history.places[HERE].calls
        place = next(n for n, call in enumerate(calls) if call.number == number)
        calls[place] = self.history.calls[number] = ModelCall(number, calls[place].at, HERE.agent, lines)

    def lines(self, number: int) -> list[Line]:
        return list(self.history.calls[number].lines)

    def send(self, text: str, start: float, end: float, answer: Answer | None = None) -> Send:
        return self.history.send(Send(HERE, text, start, end, answer))

    def delete(self, start: float, end: float, *, found: bool | None = True) -> None:
        self.history.delete(Delete(HERE, start, end, found))

    def forget(self) -> None:
        self.rows = PlaceRows()


@dataclass
class ToolWorld(World):
    """Two more turns: one called two tools at once before it was answered, one was broken off in a call."""

    def __post_init__(self) -> None:
        super().__post_init__()
        before = [*self.lines(6), Line("assistant", reply_to(FIVE, 6))]
        self.asks("G", SIX, 11, at=11)
        calls = self.calls("G", SIX, 12, ["look", "pay"], call=7, before=[*before, Line("user", SIX)])
        # The second had its result first.
        self.returns("G", 13, calls[1])
        self.returns("G", 14, calls[0])
        results = [Line("tool", result_of(call), call_id=call.id) for call in calls]
        said = Line("assistant", step_to(SIX, 7), calls=calls)
        sent = [*before, Line("user", SIX), said, *results]
        self.history.call(ModelCall(8, 11.8, HERE.agent, tuple(sent)))
        self.rows.messages.append(
            MessageRow("G", 15, None, 0, AGENT, reply_to(SIX, 8), None, None, None),
        )
        self.ends("G", SIX, 11, 15, Answer("G", "completed", reply_to(SIX, 8)))
        sent = [*sent, Line("assistant", reply_to(SIX, 8)), Line("user", SEVEN)]
        self.asks("H", SEVEN, 16, at=13, mark="tool_unknown")
        self.calls("H", SEVEN, 17, ["pay"], call=9, before=sent, mark="tool_unknown")
        self.ends("H", SEVEN, 16, 17, Answer("H", "failed", reason="tool_unknown"))
        self.session(last_seq=17)


@dataclass
class PauseWorld(World):
    """Four more turns: one asked its user, one came in between, one after the answer; the last still asks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        before = [*self.lines(6), Line("assistant", reply_to(FIVE, 6))]
        own = [Line("user", SIX)]
        self.asks("G", SIX, 11, at=11, run_state="input_required")
        own += self.pauses("G", SIX, 12, call=7, before=[*before, *own])
        self.history.places[HERE].sends[SIX][0].answer = Answer("G", "input_required", own[-1].text)

        said = Line("user", SIX, "waiting for input")
        self._turn("H", SEVEN, 15, at=13, before=[*before, said], call=8)
        between = [Line("user", SEVEN), Line("assistant", reply_to(SEVEN, 8))]

        self.asks("G", EIGHT, 17, at=15, task="G")
        own.append(Line("user", EIGHT))
        self.history.call(ModelCall(9, 15.5, HERE.agent, (*before, *between, *own)))
        self.rows.messages.append(MessageRow("G", 18, None, 0, AGENT, reply_to(EIGHT, 9), None, None, None))
        self.ends("G", EIGHT, 17, 18, Answer("G", "completed", reply_to(EIGHT, 9)))
        self.turn("G", attempt=2, earlier_runs=((11, 14),))
        own.append(Line("assistant", reply_to(EIGHT, 9)))
        # Another answer to the same question came too late.
        self.send(NINE, 15.2, 16.2).task = "G"
        self.history.places[HERE].sends[NINE][0].refusal = "400: not_paused"
        rejected = MessageRow("G", None, "10", 0, USER, NINE, 3, "rejected", None)
        self.rows.messages.append(rejected)

        # It stands where its answer came.
        self._turn("I", TEN, 19, at=17, before=[*before, *between, *own], call=10)
        before += [*between, *own, Line("user", TEN), Line("assistant", reply_to(TEN, 10))]
        waits = "waiting for input"
        self.asks("J", ELEVEN, 21, at=19, mark=waits)
        *_, question = self.pauses(
            "J", ELEVEN, 22, call=11, before=[*before, Line("user", ELEVEN)], mark=waits
        )
        self.ends("J", ELEVEN, 21, 24, Answer("J", "input_required", question.text, waits))
        self.session(last_seq=24)


@dataclass
class RetryWorld(World):
    """Five more turns: one asked, and its answer crashed; two between; the answer taken again; one after."""

    def __post_init__(self) -> None:
        super().__post_init__()
        before = [*self.lines(6), Line("assistant", reply_to(FIVE, 6))]
        own = [Line("user", SIX)]
        self.asks("G", SIX, 11, at=11, run_state="input_required")
        own += self.pauses("G", SIX, 12, call=7, before=[*before, *own])
        self.history.places[HERE].sends[SIX][0].answer = Answer("G", "input_required", own[-1].text)
        unanswered = Line("user", SIX, "waiting for input")
        self._turn("H", TEN, 15, at=12, before=[*before, unanswered], call=8)
        between = [Line("user", TEN), Line("assistant", reply_to(TEN, 8))]
        self.asks("G", SEVEN, 17, at=13, task="G", mark="superseded")
        sent = (*before, *between, *own, Line("user", SEVEN))
        self.history.call(ModelCall(9, 13.5, HERE.agent, sent))
        self.ends("G", SEVEN, 17, 17, Answer("G", "failed", "", "crashed"))
        self.turn("G", superseded=True, attempt=2, earlier_runs=((11, 14),))

        # Taken again it waits behind another, which is told that the question has no answer.
        self._turn("I", EIGHT, 18, at=15, before=[*before, unanswered, *between], call=10, ticket=3)
        between += [Line("user", EIGHT), Line("assistant", reply_to(EIGHT, 10))]
        self._turn("J", SEVEN, 20, at=17, before=[*before, *between, *own], call=11, retry=1, ticket=4)
        self.history.places[HERE].sends[SEVEN][1].task = "G"
        self.turn("J", attempt=2, earlier_runs=((11, 14),))

        # What the first turn said stands where it was said.
        answered = [Line("user", SEVEN), Line("assistant", reply_to(SEVEN, 11))]
        self._turn("K", NINE, 22, at=19, before=[*before, *own, *between, *answered], call=12)
        self.session(last_seq=23, next_ticket=4)


def result_of(call: ToolCall) -> str:
    if call.name == ASKS:
        return f"the user was asked: {question_of(call)}; the answer follows"
    return f"{call.key} ran as a1"


def question_of(call: ToolCall) -> str:
    return f"{call.key} ran as a1, what now?"
