"""The checker sees every kind of damage, and none where there is none: hand-made histories and rows."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest

from tests.chaos.checker import Checker, Kind
from tests.chaos.database import AGENT, USER, MessageRow, PlaceRows, SessionRow, Snapshot, TurnRow
from tests.chaos.history import (
    Answer,
    Delete,
    History,
    Line,
    ModelCall,
    Place,
    Send,
    parse_reply,
    place_of,
    reply_to,
    text_of,
)
from tests.chaos.model import lines_of

HERE = Place("ant", "una", "s")
ELSEWHERE = Place("ant", "uwe", "s")
ONE, TWO, THREE, FOUR, FIVE, NEVER = (text_of(HERE, number) for number in range(1, 7))


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


Damage: TypeAlias = Callable[[World], object]


def _turn_vanished(world: World) -> None:
    del world.rows.turns["F"]
    world.rows.messages = world.rows.messages[:-2]
    world.session(last_seq=8)


def _other_reply(world: World) -> None:
    world.message(2, text=reply_to(ONE, 7))


def _answered_twice(world: World) -> None:
    """Once more, without a word about the first time."""
    world._turn("G", ONE, 11, at=20, before=world.lines(6), call=7, retry=1)
    world.session(last_seq=12)


def _other_answer(world: World) -> None:
    world.send(ONE, 20, 21, Answer("G", "completed", reply_to(ONE, 8)))


def _failed_after_completed(world: World) -> None:
    world.send(ONE, 20, 21, Answer("A", "failed", reason="crashed"))


def _asked_unsaved(world: World) -> None:
    world.send(NEVER, 20, 21)
    world.history.call(ModelCall(7, 20.5, HERE.agent, (Line("user", NEVER),)))


def _interleaved(world: World) -> None:
    world.message(8, seq=99)
    world.message(9, seq=8)
    world.message(99, seq=9)


def _deaf(world: World) -> None:
    """It was not sent the newest turn before it, as of a stale read."""
    world.call(6, *world.lines(5)[:-1], Line("user", FIVE))


def _unmarked(world: World) -> None:
    world.call(5, *(line._replace(marker=None) for line in world.lines(5)))


def _superseded_sent(world: World) -> None:
    world.call(5, *world.lines(5)[:3], Line("user", THREE, "crashed"), *world.lines(5)[3:])


def _other_order(world: World) -> None:
    one, two, *rest = world.lines(6)
    world.call(6, two, one, *rest)


def _crashed_try_saw_the_future(world: World) -> None:
    world.call(2, Line("user", FIVE), *world.lines(2))


def _tickets_swapped(world: World) -> None:
    world.message(7, ticket=2)
    world.message(9, ticket=1)


def _overtaken(world: World) -> None:
    """The message with seq 7 was sent long after that with seq 9 had been answered."""
    (send,) = world.history.places[HERE].sends[FOUR]
    send.start, send.end = 50, 51


def _still_working(world: World) -> None:
    world.turn("F", state="working", last_seq=None, replica_id="r")
    world.session(last_seq=9, lease_owner="r", lease_turn_id="F")
    del world.rows.messages[-1]
    world.history.places[HERE].sends[FIVE].clear()


def _still_waiting(world: World) -> None:
    world.rows.turns["G"] = TurnRow("G", "submitted", None, False, None, None, None, 1)
    world.rows.messages.append(MessageRow("G", None, "6", 0, USER, NEVER, 3, None, None))
    world.session(waiting=1, next_ticket=3)
    world.send(NEVER, 20, 21)


def _foreign_row(world: World) -> None:
    world.message(3, text=text_of(ELSEWHERE, 2))


def _foreign_line(world: World) -> None:
    world.call(2, Line("user", text_of(ELSEWHERE, 1)), *world.lines(2))


def _foreign_words(world: World) -> None:
    world.call(2, Line("system", "You are somebody else."), *world.lines(2))


def _foreign_question(world: World) -> None:
    world.history.call(ModelCall(7, 20, HERE.agent, (Line("user", "who are you?"),)))


def _deleted_row_stays(world: World) -> None:
    world.delete(20, 21)


def _former_life_is_sent(world: World) -> None:
    world.delete(20, 21)
    world.forget()
    world.send(NEVER, 30, 31)
    world.history.call(ModelCall(7, 30.5, HERE.agent, (Line("user", ONE), Line("user", NEVER))))


def _rows_without_session(world: World) -> None:
    world.delete(20, 21, found=None)
    world.rows.session = None


DAMAGES: list[tuple[Kind, Damage]] = [
    (Kind.LOST, _turn_vanished),
    (Kind.LOST, _other_reply),
    (Kind.LOST, World.forget),
    (Kind.CHANGED, lambda world: world.turn("B", state="canceled")),
    (Kind.DISAGREE, _other_answer),
    (Kind.DISAGREE, _failed_after_completed),
    (Kind.REFUSED, lambda world: setattr(world.send(ONE, 20, 21), "refusal", "409: conflict")),
    (
        Kind.REFUSED,
        lambda world: setattr(world.send(ONE, 20, 21), "refusal", "503: the session store failed"),
    ),
    (
        Kind.FALSE_DELETE,
        lambda world: world.send(ONE, 20, 21, Answer("A", "canceled", "", "session deleted")),
    ),
    (Kind.UNSAVED, _asked_unsaved),
    (Kind.TWICE, _answered_twice),
    (Kind.TWICE, lambda world: world.message(8, text=reply_to(THREE, 4))),
    (Kind.RETRIES, lambda world: world.message(5, retry=2)),
    (Kind.RETRIES, lambda world: world.turn("C", superseded=False)),
    (Kind.RETRIES, lambda world: world.rows.turns.pop("C")),
    (Kind.SPLIT, _interleaved),
    (Kind.SPLIT, lambda world: world.turn("A", last_seq=3)),
    (Kind.SPLIT, lambda world: world.message(3, role=AGENT)),
    (Kind.CONTEXT, _deaf),
    (Kind.CONTEXT, _unmarked),
    (Kind.CONTEXT, _superseded_sent),
    (Kind.CONTEXT, _other_order),
    (Kind.CONTEXT, _crashed_try_saw_the_future),
    (Kind.CONTEXT, lambda world: world.message(10, text=reply_to(FIVE, 1))),
    (Kind.GAP, lambda world: world.session(last_seq=11)),
    (Kind.GAP, lambda world: world.message(10, seq=11)),
    (Kind.WAITING, lambda world: world.session(waiting=1)),
    (Kind.ORDER, _tickets_swapped),
    (Kind.ORDER, _overtaken),
    (Kind.LEASE, lambda world: world.session(lease_turn_id="A", lease_owner="r")),
    (Kind.LEASE, lambda world: world.turn("A", replica_id="r")),
    (Kind.LEASE, lambda world: world.turn("A", state="undone")),
    (Kind.OPEN, _still_working),
    (Kind.OPEN, _still_waiting),
    (Kind.MARK, lambda world: world.message(3, unanswered=None)),
    (Kind.MARK, lambda world: world.message(4, unanswered="crashed")),
    (Kind.MARK, lambda world: world.message(1, unanswered="crashed")),
    (Kind.FOREIGN, _foreign_row),
    (Kind.FOREIGN, _foreign_line),
    (Kind.FOREIGN, _foreign_words),
    (Kind.FOREIGN, _foreign_question),
    (Kind.FORMER_LIFE, _deleted_row_stays),
    (Kind.FORMER_LIFE, _former_life_is_sent),
    (Kind.FORMER_LIFE, _rows_without_session),
]


def test_a_sound_session_has_no_anomaly() -> None:
    assert World().check() == set()


def test_the_table_of_damages_has_every_kind() -> None:
    assert {kind for kind, _ in DAMAGES} == set(Kind)


@pytest.mark.parametrize(("kind", "damage"), DAMAGES)
def test_damage_is_found(kind: Kind, damage: Damage) -> None:
    world = World()
    damage(world)
    assert kind in world.check()


def test_a_turn_that_changes_between_two_looks_is_found() -> None:
    world = World()
    world.history.places[HERE].sends[TWO][0].answer = None
    assert world.check() == set()
    # As a replica would do that was taken for dead and wrote all the same; nobody was told otherwise.
    world.turn("B", reason="model_error")
    world.message(3, unanswered="model_error")
    assert Kind.CHANGED in world.check(since=110)


def test_a_turn_that_goes_between_two_looks_is_found() -> None:
    world = World()
    for sends in world.history.places[HERE].sends.values():
        sends[0].answer = None
    assert world.check() == set()
    _turn_vanished(world)
    assert Kind.CHANGED in world.check(since=110)


def _deleted(world: World) -> None:
    world.delete(20, 21)
    world.forget()


def _maybe_deleted(world: World) -> None:
    world.delete(9.5, 9.6, found=None)
    world.forget()


def _told_of_the_deletion(world: World) -> None:
    world.delete(9.2, 9.3)
    world.forget()
    world.send(FIVE, 9, 10, Answer("F", "canceled", "", "session deleted"))


def _answered_after_the_look(world: World) -> None:
    world.send(NEVER, 99, 102, Answer("G", "completed", "soon"))


def _outage(world: World) -> None:
    world.send(ONE, 20, 21).refusal = "503: the session store was locked"


def _taken_again_while_both_waited(world: World) -> None:
    """Nobody can tell whether the message of turn B was taken again before or after turn E began."""
    world.turn("B", superseded=True)
    world.message(3, unanswered="superseded")
    world._turn(
        "G", TWO, 11, at=9, before=[*world.lines(6)[:2], *world.lines(6)[3:]], call=7, retry=1, ticket=3
    )
    answer = [Line("assistant", reply_to(FIVE, 6)), Line("user", TWO)]
    world.call(7, *world.lines(7)[:-1], *answer)
    world.session(last_seq=12, next_ticket=3)


def _taken_again_between_two_attempts(world: World) -> None:
    """The message of turn B was taken again while turn E ran, which was then run anew."""
    _taken_again_while_both_waited(world)
    world.message(7, ticket=None)
    world.turn("E", attempt=2)
    world.call(5, *world.lines(5)[:2], *world.lines(5)[3:])


@pytest.mark.parametrize(
    "change",
    [
        _deleted,
        _maybe_deleted,
        _told_of_the_deletion,
        _answered_after_the_look,
        _outage,
        _taken_again_while_both_waited,
        _taken_again_between_two_attempts,
    ],
)
def test_what_may_be_is_no_anomaly(change: Damage) -> None:
    world = World()
    change(world)
    assert world.check() == set()


def test_a_deletion_that_found_nothing_excuses_nothing() -> None:
    world = World()
    world.delete(20, 21, found=False)
    world.forget()
    assert Kind.LOST in world.check()


def test_texts_tell_where_they_belong() -> None:
    assert place_of(text_of(HERE, 7)) == HERE
    assert place_of("hello") is None
    assert parse_reply(reply_to(ONE, 12)) == (12, ONE)


def test_what_the_model_is_sent_is_read_however_it_is_joined() -> None:
    said: list[dict[str, Any]] = [
        {"role": "system", "content": "You are ant."},
        {"role": "user", "content": f"{ONE}\n\n\n[not answered: session deleted]\n\n{TWO}"},
        {"role": "user", "content": [{"type": "text", "text": THREE}]},
        {"role": "assistant", "content": reply_to(THREE, 4)},
        {"role": "user", "content": FOUR},
    ]
    assert lines_of(said, "You are ant.") == [
        Line("user", ONE, "session deleted"),
        Line("user", TWO),
        Line("user", THREE),
        Line("assistant", reply_to(THREE, 4)),
        Line("user", FOUR),
    ]


def test_what_nobody_should_have_sent_to_the_model_is_kept_as_it_is() -> None:
    said = [{"role": "system", "content": "You are bee."}, {"role": "user", "content": "hello"}]
    assert lines_of(said, "You are ant.") == [Line("system", "You are bee."), Line("user", "hello")]
