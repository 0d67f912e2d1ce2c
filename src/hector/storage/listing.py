"""Turns in the order in which they came into their states: the statements and the operation."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import BigInteger, Integer, and_, func, or_, select, true
from sqlalchemy import bindparam as bind
from sqlalchemy.sql.elements import ColumnElement

from hector.domain.turns import Turn, TurnFilter, TurnPage, TurnPlace, TurnState, Wanted
from hector.storage import statements as sql
from hector.storage.operations import Operation, Result, Row, Statement, Step, fetch, together
from hector.storage.reading import MessageRow, Parameters, TurnRow, stored_messages, time_of, turn_of
from hector.storage.tables import messages, turns

T, M = turns.c, messages.c

# --- turns


@cache
def listing_statement(*, session: bool, state: bool, since: bool, after: bool) -> Statement:
    """The total in each row; where the page is empty, one row with nothing else.

    Made when it is first used, as most starts need none.
    """
    # Of one session there are few, which another index finds. In these words, for which there is no index, no
    # planner looks for them among all of the user's instead.
    at: ColumnElement[Any] = (
        func.coalesce(T.ended_at, T.started_at, T.created_at) if session else T.changed_at
    )
    which = [T.agent_id == bind("agent"), T.user_id == bind("user")]
    which.append(T.session_id == bind("session") if session else T.changed_at.is_not(None))
    if state:
        which.append(T.state == bind("state"))
    if since:
        which.append(at >= bind("since"))
    counted = select(func.count().label("total")).select_from(turns).where(*which).subquery("counted")
    page = select(*sql.TURN_COLUMNS, at.label("at")).where(*which)
    if after:
        # The first condition alone is a range that an index can start from.
        page = page.where(at <= bind("after_time"), or_(at < bind("after_time"), T.id < bind("after_turn")))
    listed = page.order_by(at.desc(), T.id.desc()).limit(bind("limit", type_=Integer)).subquery("listed")
    both = select(counted.c.total, *listed.c).select_from(counted.outerjoin(listed, true()))
    return Statement(both.order_by(listed.c["at"].desc(), listed.c.id.desc()))


def list_turns(
    names: Parameters,
    which: TurnFilter,
    limit: int,
    after: TurnPlace | None,
    wanted: Wanted,
    time_argument: Callable[[datetime], Any],
) -> Operation[TurnPage]:
    """`names`: the agent and the user."""
    names = names | {"limit": limit + 1}
    if which.session_id is not None:
        names["session"] = which.session_id
    if which.state is not None:
        names["state"] = which.state.value
    if which.changed_since is not None:
        names["since"] = time_argument(which.changed_since)
    if after is not None:
        names |= {"after_time": time_argument(after.changed_at), "after_turn": after.turn_id}
    statement = listing_statement(
        session="session" in names, state="state" in names, since="since" in names, after=after is not None
    )
    found = yield from fetch(statement, names)
    rows = [TurnRow(*columns) for _, *columns, at in found if at is not None]
    places = [place for *_, place in found]
    page = rows[:limit]
    following = TurnPlace(_moment(places[limit - 1]), page[-1].id) if len(rows) > limit else None
    return TurnPage((yield from _with_messages(names, page, wanted)), found[0][0], following)


def _moment(value: Any) -> datetime:
    at = time_of(value)
    assert at, "one of its columns is NOT NULL"
    return at


# --- their messages

_SIZES = (1, 8, 64)
"""How many turns' messages a statement reads: there is one for each size."""
_NONE: Parameters = {"session": "", "first": 1, "last": 0, "turn": ""}
"""Fills what is left of a size."""


def _in_run(number: int) -> ColumnElement[bool]:
    return and_(
        M.session_id == bind(f"session_{number}"),
        M.seq >= bind(f"first_{number}", type_=BigInteger),
        M.seq <= bind(f"last_{number}", type_=BigInteger),
    )


def _without_place(number: int) -> ColumnElement[bool]:
    return and_(
        M.session_id == bind(f"session_{number}"), M.seq.is_(None), M.turn_id == bind(f"turn_{number}")
    )


@cache
def _any_of(condition: Callable[[int], ColumnElement[bool]], size: int) -> Statement:
    of_user = and_(M.agent_id == bind("agent"), M.user_id == bind("user"))
    columns = (M.session_id, M.ticket, M.run_state, *sql.MESSAGE_COLUMNS)
    return Statement(select(*columns).where(of_user, or_(*map(condition, range(size)))))


def _with_messages(names: Parameters, page: Sequence[TurnRow], wanted: Wanted) -> Operation[Sequence[Turn]]:
    begun = [
        {"session": row.session_id, "first": first, "last": last}
        for row in page
        for first, last in _runs(row, wanted)
    ]
    waiting = [{"session": row.session_id, "turn": row.id} for row in page if _waits(row, wanted)]
    steps = [*_steps(_in_run, names, begun), *_steps(_without_place, names, waiting)]
    results: Sequence[Result] = (yield steps) if steps else ()
    found = _Found(row for result in results for row in result.rows)
    messages = yield from together(
        *(
            stored_messages(names | {"session": row.session_id}, found.of_turn(row, wanted), with_files=True)
            for row in page
        )
    )
    return [turn_of(row, own) for row, own in zip(page, messages, strict=True)]


class _Found:
    """Messages that were read, as their turns look for them."""

    def __init__(self, rows: Iterable[Row]) -> None:
        placed: defaultdict[str, dict[int, MessageRow]] = defaultdict(dict)
        queued: defaultdict[str, list[tuple[int, str | None, MessageRow]]] = defaultdict(list)
        for session_id, ticket, run_state, *columns in rows:
            message = MessageRow(*columns)
            if message.seq is None:
                queued[message.turn_id].append((ticket, run_state, message))
            else:
                placed[session_id][message.seq] = message
        self._placed = {session: sorted(found.items()) for session, found in placed.items()}
        self._queued = queued

    def of_turn(self, row: TurnRow, wanted: Wanted) -> list[MessageRow]:
        """As `reading.read_runs` gives them."""
        placed = self._placed.get(row.session_id, [])
        own = [
            message for first, last in _runs(row, wanted) for seq, message in placed if first <= seq <= last
        ]
        if _waits(row, wanted):
            queued = sorted(self._queued.get(row.id, ()), key=itemgetter(0))
            own += [message for _, run_state, message in queued if row.first_seq is None or run_state is None]
        return own


def _runs(row: TurnRow, wanted: Wanted) -> Sequence[tuple[int, int]]:
    """The ranges of seq that are read."""
    if wanted == "all":
        return row.runs
    if not row.runs or (wanted == "questions" and not TurnState(row.state).paused):
        return ()
    _, last = row.runs[-1]  # of one that still runs it is beyond all
    return [(last, last)]


def _waits(row: TurnRow, wanted: Wanted) -> bool:
    """It may have messages without a place in the session."""
    return wanted == "all" and (row.first_seq is None or TurnState(row.state).paused)


def _steps(
    condition: Callable[[int], ColumnElement[bool]], names: Parameters, wanted: Sequence[Parameters]
) -> Iterator[Step]:
    """One, but where turns paused again and again."""
    for start in range(0, len(wanted), _SIZES[-1]):
        some = wanted[start : start + _SIZES[-1]]
        size = next(size for size in _SIZES if size >= len(some))
        filled = [*some, *[_NONE] * (size - len(some))]
        numbered = {f"{name}_{n}": value for n, each in enumerate(filled) for name, value in each.items()}
        yield Step(_any_of(condition, size), names | numbered)
