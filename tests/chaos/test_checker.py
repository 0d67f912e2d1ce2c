"""The checker sees every kind of damage, and none where there is none: hand-made histories and rows."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from tests.chaos import tool_rules
from tests.chaos.anomalies import Kind
from tests.chaos.database import AGENT, USER, MessageRow, PlaceRows, TurnRow
from tests.chaos.history import (
    Answer,
    Line,
    ModelCall,
    Place,
    PlaceHistory,
    ToolCall,
    ToolResult,
    arguments_of,
    key_of,
    parse_reply,
    place_of,
    reply_to,
    text_of,
)
from tests.chaos.model import lines_of
from tests.chaos.world import (
    EIGHT,
    ELEVEN,
    ELSEWHERE,
    FIVE,
    FOUR,
    HERE,
    NEVER,
    NINE,
    ONE,
    SEVEN,
    SIX,
    THREE,
    TWO,
    PauseWorld,
    RetryWorld,
    ToolWorld,
    World,
)

Damage: TypeAlias = Callable[[World], object]
ToolDamage: TypeAlias = Callable[[ToolWorld], object]
PauseDamage: TypeAlias = Callable[[PauseWorld], object]
RetryDamage: TypeAlias = Callable[[RetryWorld], object]


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


def _ran_unstored(world: ToolWorld) -> None:
    """As if its process had died before it stored what the model said, and after the tool had its effect."""
    lines = (*world.lines(9)[:-1], Line("user", SEVEN, "tool_unknown"), Line("user", NEVER))
    world.send(NEVER, 20, 99.9)
    world.history.call(ModelCall(10, 20.5, HERE.agent, lines, (("look", key_of(NEVER, 10, 1)),)))
    world.rows.turns["I"] = TurnRow("I", "working", None, False, 18, None, "r", 1)
    world.rows.messages.append(MessageRow("I", 18, "6", 0, USER, NEVER, None, None, None))
    world.session(last_seq=18, lease_owner="r", lease_turn_id="I")
    world.runs("look", key_of(NEVER, 10, 1), at=20.6)


def _result_of_another_run(world: ToolWorld) -> None:
    world.message(13, result=ToolResult("call_1", f"{key_of(SIX, 7, 2)} ran as b2"))


def _never_ran(world: ToolWorld) -> None:
    del world.history.places[HERE].tool_runs[key_of(SIX, 7, 1)]


def _results_swapped(world: ToolWorld) -> None:
    first, second = (next(row for row in world.rows.messages if row.seq == at).result for at in (13, 14))
    assert first
    assert second
    world.message(13, result=first._replace(text=second.text))
    world.message(14, result=second._replace(text=first.text))


def _result_missing(world: ToolWorld) -> None:
    """The model was asked again before all tools had ended."""
    world.rows.messages = [row for row in world.rows.messages if row.seq != 14]
    world.message(15, seq=14)
    world.message(16, seq=15)
    world.message(17, seq=16)
    world.turn("G", last_seq=14)
    world.turn("H", first_seq=15, last_seq=16)
    world.session(last_seq=16)


def _may_be_repeated(world: ToolWorld) -> None:
    world.turn("H", reason="crashed")
    world.message(16, unanswered="crashed")
    world.message(17, unanswered="crashed")
    world.history.places[HERE].sends[SEVEN][0].answer = Answer("H", "failed", reason="crashed")


def _was_repeated(world: ToolWorld) -> None:
    """The message of the turn that may have had effects was run again."""
    world.turn("H", superseded=True)
    world.message(16, unanswered="superseded")
    world.message(17, unanswered="superseded")
    sent = world.lines(9)
    world._turn("I", SEVEN, 18, at=20, before=sent[:-1], call=10, retry=1)
    world.session(last_seq=19)


def _no_effects(world: ToolWorld) -> None:
    world.turn("B", reason="tool_unknown")
    world.message(3, unanswered="tool_unknown")
    world.history.places[HERE].sends[TWO][0].answer = Answer("B", "failed", reason="tool_unknown")
    for number in range(4, 10):
        mark = "tool_unknown"
        lines = (line._replace(marker=mark) if line.text == TWO else line for line in world.lines(number))
        world.call(number, *lines)


def _own_step_forgotten(world: ToolWorld) -> None:
    """Run on, it was asked as if it had called nothing yet."""
    lines = world.lines(8)
    world.call(8, *lines[:-3])


def _own_steps_in_order_of_arrival(world: ToolWorld) -> None:
    *before, one, other = world.lines(8)
    world.call(8, *before, other, one)


def _turns_interleaved(world: ToolWorld) -> None:
    """And both say so."""
    world.message(15, seq=99)
    world.message(16, seq=15)
    world.message(99, seq=16)
    world.turn("G", last_seq=16)
    world.turn("H", first_seq=15)


def _completed_without_a_word(world: ToolWorld) -> None:
    world.rows.turns["I"] = TurnRow("I", "completed", None, False, None, None, None, 1)


def _called_twice(world: ToolWorld) -> None:
    world.message(17, calls=(ToolCall("call_0", "pay", arguments_of(key_of(SIX, 7, 2))),))


TOOL_DAMAGES: list[tuple[Kind, ToolDamage]] = [
    (Kind.REPEATED, lambda world: world.runs("pay", key_of(SIX, 7, 2), at=12.9, run="b2")),
    (Kind.REPEATED, lambda world: world.runs("pay", key_of(SEVEN, 9, 1), at=14, run="b2")),
    (Kind.UNSTORED, _ran_unstored),
    (Kind.UNSTORED, lambda world: world.runs("pay", key_of(SIX, 7, 3), at=12)),
    (Kind.FOREIGN, lambda world: world.runs("pay", key_of(SIX, 7, 3), at=12)),
    (Kind.FOREIGN, lambda world: world.runs("pay", key_of(NEVER, 7, 3), at=12)),
    (Kind.FOREIGN, lambda world: world.runs("pay", "whatever", at=12)),
    (Kind.FOREIGN, lambda world: world.message(17, text=reply_to(text_of(ELSEWHERE, 8), 9))),
    (Kind.RESULT, _result_of_another_run),
    (Kind.RESULT, _never_ran),
    (Kind.RESULT, _results_swapped),
    (Kind.RESULT, lambda world: world.message(13, failed=True)),
    (Kind.UNSAFE, _may_be_repeated),
    (Kind.UNSAFE, lambda world: world.message(17, harmless=(True,))),
    (Kind.RETRIES, _was_repeated),
    (Kind.DISAGREE, lambda world: world.send(SEVEN, 30, 31, Answer("I", "failed", reason="crashed"))),
    (Kind.HARMLESS, _no_effects),
    (Kind.SPLIT, _result_missing),
    (Kind.SPLIT, _turns_interleaved),
    (Kind.SPLIT, _completed_without_a_word),
    (Kind.SPLIT, lambda world: world.rows.turns.pop("H")),
    (Kind.SPLIT, lambda world: world.message(14, result=ToolResult("call_7", ""))),
    (Kind.CONTEXT, _own_step_forgotten),
    (Kind.CONTEXT, _own_steps_in_order_of_arrival),
    (
        Kind.CONTEXT,
        lambda world: world.message(12, calls=(ToolCall("call_0", "look", arguments_of(SIX)),) * 2),
    ),
    (
        Kind.TWICE,
        lambda world: world.message(17, calls=(ToolCall("c", "pay", arguments_of(key_of(SIX, 7, 2))),)),
    ),
]


def _answer_of(world: World, text: str, answer: Answer) -> None:
    """The client was told otherwise."""
    world.history.places[HERE].sends[text][0].answer = answer


def _question(world: PauseWorld) -> str:
    return next(row.text for row in world.rows.messages if row.seq == 14)


def _paused_without_a_question(world: PauseWorld) -> None:
    _answer_of(world, SIX, Answer("G", "input_required", ""))


def _told_of_the_next_run(world: PauseWorld) -> None:
    """The end of the turn in place of the question."""
    _answer_of(world, SIX, Answer("G", "completed", reply_to(EIGHT, 9)))


def _refused_but_told_an_end(world: PauseWorld) -> None:
    """What was told is how the other answer was answered."""
    world.send(NINE, 15.2, 16.2, Answer("G", "completed", reply_to(EIGHT, 9)))


def _refused_without_a_rival(world: PauseWorld) -> None:
    world.send(EIGHT, 30, 31).refusal = "400: not_paused"
    world.history.places[HERE].sends[NINE][0].task = None


def _refused_and_taken(world: PauseWorld) -> None:
    """... as if it had been said to a turn of its own."""
    world.rows.messages = [row for row in world.rows.messages if row.text != NINE]
    world.rows.turns["K"] = TurnRow("K", "failed", "crashed", False, 25, 25, None, 1)
    world.rows.messages.append(MessageRow("K", 25, "10", 0, USER, NINE, None, None, "crashed"))
    world.session(last_seq=25)


def _resumed_without_its_own(world: PauseWorld) -> None:
    lines = world.lines(9)
    world.call(9, *lines[:-5], lines[-1])


def _resumed_in_its_old_place(world: PauseWorld) -> None:
    """What came between is sent after the turn's own messages."""
    lines = world.lines(9)
    world.call(9, *lines[:-7], *lines[-5:-1], *lines[-7:-5], lines[-1])


def _stands_where_it_began(world: PauseWorld) -> None:
    lines = world.lines(10)
    world.call(10, *lines[:-9], *lines[-7:-1], *lines[-9:-7], lines[-1])


def _read_as_answered(world: PauseWorld) -> None:
    """The turn in between was sent the paused one as if it waited for nothing."""
    *before, waiting, said = world.lines(8)
    world.call(8, *before, waiting._replace(marker=None), said)


def _question_lost(world: PauseWorld) -> None:
    """As if the tool had not asked, the model was asked again."""
    world.rows.messages = [row for row in world.rows.messages if row.turn_id != "J" or row.seq != 24]
    sent = [*world.lines(11), Line("assistant", "x")]
    world.history.call(ModelCall(12, 19.9, HERE.agent, tuple(sent)))
    row = MessageRow("J", 24, None, 0, AGENT, reply_to(ELEVEN, 12), None, None, None)
    world.rows.messages.append(row)
    world.turn("J", state="completed", reason=None)


def _other_question(world: PauseWorld) -> None:
    world.message(24, text=_question(world))


def _paused_and_leased(world: PauseWorld) -> None:
    world.session(lease_owner="r", lease_turn_id="J")


def _waits_for_a_turn_it_did_not_name(world: PauseWorld) -> None:
    world.send(NEVER, 20, 21)
    world.rows.messages.append(MessageRow("J", None, "6", 0, USER, NEVER, 4, None, None))
    world.session(waiting=1)


def _runs_interleaved(world: PauseWorld) -> None:
    """The message in between stands within a run."""
    world.message(14, seq=99)
    world.message(15, seq=14)
    world.message(99, seq=15)


PAUSE_DAMAGES: list[tuple[Kind, PauseDamage]] = [
    (Kind.LOST, _paused_without_a_question),
    (Kind.CHANGED, _told_of_the_next_run),
    (Kind.LOST, _refused_but_told_an_end),
    (Kind.REFUSED, _refused_without_a_rival),
    (Kind.REFUSED, _refused_and_taken),
    (Kind.REFUSED, lambda world: setattr(world.send(EIGHT, 30, 31), "refusal", "404: not_found")),
    (Kind.DISAGREE, lambda world: world.send(SIX, 30, 31, Answer("G", "completed", "x"))),
    (Kind.DISAGREE, lambda world: world.send(SIX, 30, 31, Answer("I", "failed", "", "crashed"))),
    (Kind.CONTEXT, _resumed_without_its_own),
    (Kind.CONTEXT, _resumed_in_its_old_place),
    (Kind.CONTEXT, _stands_where_it_began),
    (Kind.CONTEXT, _read_as_answered),
    (Kind.UNASKED, _question_lost),
    (Kind.UNASKED, _other_question),
    (Kind.UNASKED, lambda world: world.message(22, calls=(ToolCall("call_0", "look", "{}"),))),
    (Kind.LEASE, _paused_and_leased),
    (Kind.LEASE, lambda world: world.turn("J", replica_id="r")),
    (Kind.LEASE, _waits_for_a_turn_it_did_not_name),
    (Kind.SPLIT, _runs_interleaved),
    (Kind.SPLIT, lambda world: world.turn("G", earlier_runs=())),
    (Kind.SPLIT, lambda world: world.turn("G", earlier_runs=((11, 13),))),
    (Kind.SPLIT, lambda world: world.message(11, run_state=None)),
    (Kind.SPLIT, lambda world: world.message(24, text=reply_to(ELEVEN, 11))),
    (Kind.MARK, lambda world: world.message(12, unanswered="waiting for input")),
    (Kind.MARK, lambda world: world.message(22, unanswered=None)),
    (Kind.TWICE, lambda world: world.message(24, text=_question(world))),
]


@pytest.mark.parametrize(("kind", "damage"), PAUSE_DAMAGES)
def test_damage_by_pauses_is_found(kind: Kind, damage: PauseDamage) -> None:
    world = PauseWorld()
    damage(world)
    assert kind in world.check()


def test_a_question_that_changes_between_two_looks_is_found() -> None:
    world = PauseWorld()
    world.history.places[HERE].sends[SIX][0].answer = None
    assert world.check() == set()
    # The turn ended long since; what it asked before its pause did not.
    for at in (13, 14):
        row = next(row for row in world.rows.messages if row.seq == at)
        world.message(at, text=row.text.replace("a1", "b2"))
    assert Kind.CHANGED in world.check(since=110)


def _moves_its_question(world: RetryWorld) -> None:
    """As if the run of the answer that failed were still there, behind which a turn stands."""
    *before, question, one, two, said = world.lines(10)
    world.call(10, *before, one, two, question, said)


RETRY_DAMAGES: list[tuple[Kind, RetryDamage]] = [
    (Kind.SPLIT, lambda world: world.turn("J", earlier_runs=())),
    (Kind.SPLIT, lambda world: world.turn("J", earlier_runs=((11, 14), (17, 17)))),
    (Kind.SPLIT, lambda world: world.turn("K", earlier_runs=((11, 14),))),
    (Kind.RETRIES, lambda world: world.turn("G", superseded=False)),
    (Kind.MARK, lambda world: world.message(12, unanswered="superseded")),
    (Kind.MARK, lambda world: world.message(17, unanswered=None)),
    (Kind.CONTEXT, lambda world: world.call(10, *world.lines(10)[:-4], *world.lines(10)[-3:])),
    (Kind.CONTEXT, _moves_its_question),
    (Kind.CONTEXT, lambda world: world.call(11, *world.lines(11)[:-5], world.lines(11)[-1])),
    (Kind.CONTEXT, lambda world: world.call(12, *world.lines(8)[:-2], *world.lines(12)[-7:])),
]


@pytest.mark.parametrize(("kind", "damage"), RETRY_DAMAGES)
def test_damage_to_an_answer_that_was_taken_again_is_found(kind: Kind, damage: RetryDamage) -> None:
    world = RetryWorld()
    damage(world)
    assert kind in world.check()


@pytest.mark.parametrize("world", [World, ToolWorld, PauseWorld, RetryWorld])
def test_a_sound_session_has_no_anomaly(world: type[World]) -> None:
    assert world().check() == set()


def test_the_tables_of_damages_have_every_kind() -> None:
    # An agent that forbids it has a test of its own.
    assert {kind for kind, _ in [*DAMAGES, *TOOL_DAMAGES, *PAUSE_DAMAGES]} == set(Kind) - {Kind.RUN_ON}


@pytest.mark.parametrize(("kind", "damage"), TOOL_DAMAGES)
def test_damage_by_tools_is_found(kind: Kind, damage: ToolDamage) -> None:
    world = ToolWorld()
    damage(world)
    assert kind in world.check()


@pytest.mark.parametrize(
    ("agent", "attempt", "earlier", "kinds"),
    [
        ("bee", 1, (), set()),
        ("bee", 2, (), {Kind.RUN_ON}),
        ("bee", 2, ((1, 2),), set()),
        ("bee", 3, ((1, 2),), {Kind.RUN_ON}),
        ("cat", 2, (), set()),
    ],
)
def test_a_turn_that_is_run_on_against_its_agents_wish_is_found(
    agent: str, attempt: int, earlier: tuple[tuple[int, int], ...], kinds: set[Kind]
) -> None:
    turn = TurnRow("A", "failed", "crashed", False, 3, 3, None, attempt, earlier)
    rows = PlaceRows(turns={"A": turn})
    told = PlaceHistory(Place(agent, "una", "s"))
    assert {kind for kind, _ in tool_rules.anomalies(told, rows, 1, 2)} == kinds


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


def _ran_twice_without_harm(world: ToolWorld) -> None:
    """Another replica took the turn over before the result was stored."""
    world.runs("look", key_of(SIX, 7, 1), at=11.2, run="b2")
    world.turn("G", attempt=2)


def _never_ran_to_its_end(world: ToolWorld) -> None:
    """Its process died before the tool had its effect."""
    del world.history.places[HERE].tool_runs[key_of(SEVEN, 9, 1)]


def _deleted_while_it_ran(world: ToolWorld) -> None:
    world.delete(13.5, 13.6)
    world.forget()


def _ran_after_the_look(world: ToolWorld) -> None:
    world.history.call(
        ModelCall(10, 99.5, HERE.agent, tuple(world.lines(9)), (("pay", key_of(SEVEN, 10, 1)),))
    )
    world.runs("pay", key_of(SEVEN, 10, 1), at=101)


def _told_again(world: ToolWorld) -> None:
    world.send(SEVEN, 30, 31, Answer("H", "failed", reason="tool_unknown"))


def _asked_again_before_anything_was_stored(world: ToolWorld) -> None:
    """Its first answer was lost with the process that had asked for it."""
    lines = tuple(world.lines(7))
    world.history.call(ModelCall(10, 11.4, HERE.agent, lines, (("pay", key_of(SIX, 10, 1)),)))


@pytest.mark.parametrize(
    "change",
    [
        _ran_twice_without_harm,
        _never_ran_to_its_end,
        _deleted_while_it_ran,
        _ran_after_the_look,
        _told_again,
        _asked_again_before_anything_was_stored,
    ],
)
def test_what_may_be_with_tools_is_no_anomaly(change: ToolDamage) -> None:
    world = ToolWorld()
    change(world)
    assert world.check() == set()


def _answer_waits(world: PauseWorld) -> None:
    world.send(NEVER, 20, 99.9).task = "J"
    world.rows.messages.append(MessageRow("J", None, "6", 0, USER, NEVER, 4, None, None))
    world.session(waiting=1, next_ticket=4)


def _asked_what_was_deleted(world: PauseWorld) -> None:
    world.delete(20, 21)
    world.forget()
    late = world.send(NEVER, 22, 23)
    late.task, late.refusal = "J", "404: not_found"


def _paused_turn_goes_on(world: PauseWorld) -> None:
    """Between two looks."""
    assert world.check() == set()
    world.message(21, run_state="input_required")
    world.rows.turns["J"] = TurnRow("J", "working", None, False, 25, None, "r", 2, ((21, 24),))
    world.send(NEVER, 101, 109).task = "J"
    world.rows.messages.append(MessageRow("J", 25, "6", 0, USER, NEVER, None, None, None))
    world.session(last_seq=25, lease_owner="r", lease_turn_id="J")


@pytest.mark.parametrize("change", [_answer_waits, _asked_what_was_deleted])
def test_what_may_be_with_pauses_is_no_anomaly(change: PauseDamage) -> None:
    world = PauseWorld()
    change(world)
    assert world.check() - {Kind.OPEN, Kind.WAITING} == set()


def test_a_paused_turn_may_go_on_between_two_looks() -> None:
    world = PauseWorld()
    _paused_turn_goes_on(world)
    assert world.check(since=110) - {Kind.OPEN} == set()


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


def test_steps_are_read_as_they_were_sent() -> None:
    keys = [key_of(ONE, 1, 1), key_of(ONE, 1, 2)]
    calls = [
        {"id": f"call_{n}", "type": "function", "function": {"name": "look", "arguments": arguments_of(key)}}
        for n, key in enumerate(keys)
    ]
    said: list[dict[str, Any]] = [
        {"role": "user", "content": ONE},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_0", "content": "one"},
        {"role": "tool", "tool_call_id": "call_1", "content": "two"},
        {"role": "assistant", "content": "step 2 to that", "tool_calls": calls[:1]},
    ]
    made = tuple(ToolCall(f"call_{n}", "look", arguments_of(key)) for n, key in enumerate(keys))
    assert lines_of(said, "") == [
        Line("user", ONE),
        Line("assistant", "", calls=made),
        Line("tool", "one", call_id="call_0"),
        Line("tool", "two", call_id="call_1"),
        Line("assistant", "step 2 to that", calls=made[:1]),
    ]


def test_what_nobody_should_have_sent_to_the_model_is_kept_as_it_is() -> None:
    said = [{"role": "system", "content": "You are bee."}, {"role": "user", "content": "hello"}]
    assert lines_of(said, "You are ant.") == [Line("system", "You are bee."), Line("user", "hello")]
