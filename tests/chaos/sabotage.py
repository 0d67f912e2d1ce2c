"""`hector` with one of its safeguards taken out: the suite must find out.

    python -m tests.chaos.sabotage guard|begin|commit|lease|places|calls|results ARGUMENTS OF HECTOR

guard   every write of a turn goes through, whoever has the lease
begin   a message is judged by what was read before, in a transaction of its own
commit  a turn whose last commit got no answer is told as ended; on a server only
lease   a message begins its turn whether or not another runs in its session
places  a stream that goes on elsewhere tells all of its attempt again
calls   tools are run before the model's message that calls them is stored
results calls that have no result are made again, whatever they do

With them go the unique keys that are the second net, and would make errors of the damage.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

from sqlalchemy import UniqueConstraint, and_, bindparam
from sqlalchemy.sql.visitors import replacement_traverse

from hector.cli.main import main
from hector.domain import recovery
from hector.domain.admission import SessionFacts
from hector.domain.events import Told
from hector.domain.memory import TailLimit
from hector.domain.messages import ToolCall, ToolMessage
from hector.domain.turns import Accepted, Arrival, Lease, NewMessage, Outcome, Turn
from hector.engine.turn import TurnRun
from hector.server.a2a.narrator import Narrator
from hector.storage import fused, running, statements, store, turns
from hector.storage.operations import Operation, Result, Statement
from hector.storage.server import driver as server
from hector.storage.tables import messages, sessions

T = TypeVar("T")


def without_unique_keys(*names: str) -> None:
    """In the schema that the first start makes."""
    keys = {each.name: each for each in messages.constraints if isinstance(each, UniqueConstraint)}
    for name in names:
        messages.constraints.remove(keys[name])


def without_guard() -> None:
    # The other key is what a repeat is found by, where a turn begins in one statement.
    without_unique_keys("uq_messages_seq")
    assert _without(statements, statements._guard) == 3, "append, end and hand over"
    # Tried first where a whole transaction is one statement.
    assert _without(fused, fused._guarded) == 3, "append, append and count, and end"


def _without(module: ModuleType, guard: Any) -> int:
    """Leave of the guard what names the session; how many statements of the module had it."""
    the_session = and_(
        sessions.c.agent_id == bindparam("agent"),
        sessions.c.user_id == bindparam("user"),
        sessions.c.id == bindparam("session"),
    )
    changed: set[str] = set()
    for name, statement in list(vars(module).items()):

        def replaced(element: Any, name: str = name, **options: Any) -> Any:
            if element is guard:
                changed.add(name)
                return the_session
            return None

        if isinstance(statement, Statement):
            core: Any = statement._statement
            setattr(module, name, Statement(replacement_traverse(core, {}, replaced)))
    return len(changed)


def without_begin() -> None:
    without_unique_keys("uq_messages_seq", "uq_messages_message_id")

    async def accept(self: store.SqlSessionStore, arrival: Arrival, limit: TailLimit) -> Accepted:
        seen: list[Sequence[Result]] = []
        # Not `read`: what is locked may only be read where it may be written.
        await self._driver.write(lambda: _reads_of(turns.accept(arrival, limit), seen))
        return await self._driver.write(lambda: _after(turns.accept(arrival, limit), seen))

    store.SqlSessionStore.accept = accept  # type: ignore[method-assign]  # that is the sabotage


def _reads_of(operation: Operation[T], seen: list[Sequence[Result]]) -> Operation[None]:
    """What the operation reads before it writes for the first time."""
    seen.clear()
    try:
        steps = next(operation)
        while all(step.statement._statement.is_select for step in steps):
            seen.append((yield steps))
            steps = operation.send(seen[-1])
    except StopIteration:
        return


def _after(operation: Operation[T], seen: list[Sequence[Result]]) -> Operation[T]:
    """The operation, believing what was seen before."""
    old = iter(seen)
    try:
        steps = next(operation)
        while True:
            known = next(old, None)
            steps = operation.send(known if known is not None else (yield steps))
    except StopIteration as stop:
        value: T = stop.value
        return value


def without_commit() -> None:
    async def end(
        self: store.SqlSessionStore, lease: Lease, messages: Sequence[NewMessage], outcome: Outcome
    ) -> Turn:
        driver: Any = self._driver
        connection = await driver.pool.acquire()
        try:
            turn: Turn = await server.transact(connection, "write", running.end(lease, messages, outcome))
            return turn
        except server.ConnectionLostError:
            return running.ended_turn(lease, messages, outcome, None)
        finally:
            driver.pool.release(connection)

    store.SqlSessionStore.end = end  # type: ignore[method-assign]  # that is the sabotage


def without_lease() -> None:
    accepting: Any = turns
    admit = accepting.admit
    accepting.admit = lambda session, *rest: admit(SessionFacts(None, 0), *rest)


def without_places() -> None:
    """Streams that go on forget where they were."""
    Narrator._note = lambda self, event: None  # type: ignore[method-assign]  # that is the sabotage
    tell = Narrator.tell

    def tell_all(self: Narrator, told: Told) -> Any:
        self._after = None
        return tell(self, told)

    Narrator.tell = tell_all  # type: ignore[method-assign]  # that is the sabotage


def without_calls() -> None:
    store_reply = TurnRun._store_reply
    one_at_a_time = asyncio.Lock()

    async def store_nothing(self: TurnRun) -> None:
        """Not yet."""

    async def run_tool(self: TurnRun, call: ToolCall) -> None:
        ran = await self._toolbox.run(call)
        async with one_at_a_time:
            await store_reply(self)
        await self._append(ToolMessage(ran))

    TurnRun._store_reply = store_nothing  # type: ignore[method-assign]  # that is the sabotage
    TurnRun._run_tool = run_tool  # type: ignore[method-assign]  # that is the sabotage


def without_results() -> None:
    recovery.unrecorded = lambda own: []


SABOTAGES: Mapping[str, Callable[[], None]] = {
    "guard": without_guard,
    "begin": without_begin,
    "commit": without_commit,
    "lease": without_lease,
    "places": without_places,
    "calls": without_calls,
    "results": without_results,
}

if __name__ == "__main__":
    SABOTAGES[sys.argv.pop(1)]()
    main()
