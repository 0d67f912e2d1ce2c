"""`hector` with one of its safeguards taken out: the suite must find out.

    python -m tests.kill.sabotage guard|begin ARGUMENTS OF HECTOR

guard   every write of a turn goes through, whoever has the lease
begin   a message is judged by what was read before, in a transaction of its own

With either of them go the unique keys, which are the second net: they would make errors of the damage.
"""

import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from sqlalchemy import BigInteger, UniqueConstraint, bindparam, null, update

from hector.cli.main import main
from hector.domain.memory import TailLimit
from hector.domain.turns import Accepted, Arrival
from hector.storage import statements, store, turns
from hector.storage.operations import Operation, Result, Statement, now
from hector.storage.tables import messages, sessions

T = TypeVar("T")


def without_unique_keys() -> None:
    for constraint in [each for each in messages.constraints if isinstance(each, UniqueConstraint)]:
        messages.constraints.discard(constraint)


def without_guard() -> None:
    session = (
        sessions.c.agent_id == bindparam("agent"),
        sessions.c.user_id == bindparam("user"),
        sessions.c.id == bindparam("session"),
    )
    last_seq = bindparam("new_seq", type_=BigInteger)
    statements.GUARDED_ADVANCE = Statement(
        update(sessions).where(*session).values(last_seq=last_seq, updated_at=now())
    )
    statements.GUARDED_RELEASE = Statement(
        update(sessions)
        .where(*session)
        .values(last_seq=last_seq, updated_at=now(), lease_owner=null(), lease_turn_id=null())
    )


def without_begin() -> None:
    async def accept(self: store.SqlSessionStore, arrival: Arrival, limit: TailLimit) -> Accepted:
        seen: list[Result] = []
        await self._driver.read(lambda: _reads_of(turns.accept(arrival, limit), seen))
        return await self._driver.write(lambda: _after(turns.accept(arrival, limit), seen))

    store.SqlSessionStore.accept = accept  # type: ignore[method-assign]  # that is the sabotage


def _reads_of(operation: Operation[T], seen: list[Result]) -> Operation[None]:
    """What the operation reads before it writes for the first time."""
    try:
        step = next(operation)
        while step.statement._statement.is_select:
            seen.append((yield step))
            step = operation.send(seen[-1])
    except StopIteration:
        return


def _after(operation: Operation[T], seen: list[Result]) -> Operation[T]:
    """The operation, believing what was seen before."""
    old = iter(seen)
    try:
        step = next(operation)
        while True:
            known = next(old, None)
            step = operation.send(known if known is not None else (yield step))
    except StopIteration as stop:
        value: T = stop.value
        return value


SABOTAGES: Mapping[str, Callable[[], None]] = {"guard": without_guard, "begin": without_begin}

if __name__ == "__main__":
    which = sys.argv.pop(1)
    without_unique_keys()
    SABOTAGES[which]()
    main()
