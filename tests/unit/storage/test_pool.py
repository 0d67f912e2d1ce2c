"""The pool, against a server in memory and on a clock that jumps."""

import asyncio
import functools
import gc
import logging
import selectors
from collections.abc import Callable, Coroutine, Iterable
from itertools import pairwise
from typing import Any, ParamSpec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hector.domain.errors import StorageError, StoreOpenError, StoreUnavailableError, StoreUnreachableError
from hector.storage.server.pool import Pool

P = ParamSpec("P")


class JumpingSelector(selectors.SelectSelector):
    """Waits for nothing: it moves the clock instead."""

    now = 0.0
    rounds = 0
    """Since the clock was moved."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits, and no timer is left to wake anybody"
        self.rounds = 0 if timeout else self.rounds + 1
        assert self.rounds < 1000, "somebody is busy with nothing"
        self.now += timeout
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its clock goes on to the next timer when there is nothing else to do, so that no time is spent.

    To sleep is to move the clock; to sleep for `AN_INSTANT`, to let all happen that can happen now.
    """

    def __init__(self) -> None:
        self._clock = JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


AN_INSTANT = 1e-6


def on_jumping_clock(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Nothing may go wrong in the background, nor be left there."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        faults: list[dict[str, Any]] = []

        async def to_the_end() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
            await test(*args, **kwargs)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            timers = vars(asyncio.get_running_loop())["_scheduled"]
            assert all(timer.cancelled() for timer in timers), "only the end of the pool stops them"

        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(to_the_end())
            gc.collect(1)  # a future whose error nobody asked for tells when it is collected
        assert not faults

    return run


class FullError(StoreUnreachableError):
    pass


DOWN = StoreUnreachableError("x", "nobody answers")
FULL = FullError("x", "the server has no connection left (max_connections)")


class FakeConnection:
    def __init__(self, server: "FakeServer", number: int) -> None:
        self._server = server
        self.number = number
        self.usable = True
        self.ends: list[str] = []
        """What the pool called to end it."""

    def __repr__(self) -> str:
        return f"<connection {self.number}>"

    def break_(self) -> None:
        """As a server does that restarts."""
        self.usable = False
        self._server.open.discard(self)

    async def close(self) -> None:
        self.ends.append("close")
        await asyncio.sleep(self._server.goodbye)
        self.break_()
        if self._server.rude:
            raise ConnectionResetError

    def abort(self) -> None:
        self.ends.append("abort")
        self.break_()


class FakeServer:
    def __init__(self) -> None:
        self.limit = 100
        self.down: Exception | None = None
        self.latency = 0.01
        self.goodbye = 0.01
        self.rude = False
        """A goodbye fails."""
        self.stubborn = False
        """It goes on connecting when it is cancelled."""
        self.attempts: list[float] = []
        """When they began."""
        self.connecting = 0
        self.open: set[FakeConnection] = set()
        self.all: list[FakeConnection] = []
        self.most = 0
        """Connections that existed at once, tries among them."""
        self.most_connecting = 0

    async def connect(self) -> FakeConnection:
        self.attempts.append(asyncio.get_running_loop().time())
        self.connecting += 1
        self.most = max(self.most, len(self.open) + self.connecting)
        self.most_connecting = max(self.most_connecting, self.connecting)
        try:
            await asyncio.sleep(self.latency)
        except asyncio.CancelledError:
            if not self.stubborn:
                raise
        finally:
            self.connecting -= 1
        if self.down:
            raise self.down
        if len(self.open) >= self.limit:
            raise FULL
        connection = FakeConnection(self, len(self.all))
        self.open.add(connection)
        self.all.append(connection)
        return connection

    def pool(
        self, max_conns: int = 3, *, max_idle: int = 100, lifetime: float = 0.0, timeout: float = 10.0
    ) -> Pool[FakeConnection]:
        return Pool(
            "x",
            self.connect,
            full=FullError,
            max_conns=max_conns,
            max_idle=max_idle,
            lifetime=lifetime,
            timeout=timeout,
        )


Callers = list[asyncio.Task[FakeConnection]]


async def callers(pool: Pool[FakeConnection], count: int) -> Callers:
    """So many that have asked, in this order, and are served as far as can be."""
    tasks = [asyncio.create_task(pool.acquire()) for _ in range(count)]
    await asyncio.sleep(AN_INSTANT)
    return tasks


async def held(pool: Pool[FakeConnection], count: int) -> list[FakeConnection]:
    return list(await asyncio.gather(*(pool.acquire() for _ in range(count))))


def release(pool: Pool[FakeConnection], connections: Iterable[FakeConnection]) -> None:
    for connection in connections:
        pool.release(connection)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- who is served


@on_jumping_clock
async def test_the_connection_used_last_is_used_next() -> None:
    server = FakeServer()
    pool = server.pool()
    first, second = await held(pool, 2)
    release(pool, [first, second])
    assert await pool.acquire() is second
    assert await pool.acquire() is first
    release(pool, [second, first])
    assert await pool.acquire() is first
    pool.release(first)
    assert len(server.all) == 2
    await pool.close()


@on_jumping_clock
async def test_connections_are_opened_side_by_side_up_to_max_conns() -> None:
    server = FakeServer()
    pool = server.pool(3)
    waiting = await callers(pool, 5)
    await asyncio.sleep(0.02)
    assert [task.done() for task in waiting] == [True, True, True, False, False]
    assert server.most_connecting == server.most == pool.size == 3
    release(pool, [task.result() for task in waiting[:3]])
    release(pool, [await task for task in waiting[3:]])
    assert pool.idle == 3
    await pool.close()


@on_jumping_clock
async def test_who_waits_first_is_served_first_and_no_newcomer_comes_between() -> None:
    pool = FakeServer().pool(1)
    connection = await pool.acquire()
    first, second = await callers(pool, 2)
    pool.release(connection)
    newcomer = asyncio.create_task(pool.acquire())
    for waiter in (first, second, newcomer):
        await asyncio.sleep(AN_INSTANT)
        assert [task.done() for task in (first, second, newcomer)].count(False) == pool.waiting
        pool.release(await waiter)
    assert pool.waited == 4
    await pool.close()


@on_jumping_clock
async def test_a_caller_who_asks_again_comes_last() -> None:
    pool = FakeServer().pool(1)
    served: list[str] = []

    async def caller(name: str) -> None:
        for _ in range(3):
            connection = await pool.acquire()
            served.append(name)
            pool.release(connection)

    await asyncio.gather(*(caller(name) for name in "abc"))
    # `a` finds it idle as soon as it has released it, unless others wait.
    assert served[:4] == ["a", "b", "c", "a"]
    await pool.close()


@on_jumping_clock
async def test_a_connection_that_opens_goes_to_who_waits_longest_not_to_who_caused_it() -> None:
    server = FakeServer()
    pool = server.pool(2)
    connection = await pool.acquire()
    server.latency = 1.0
    first, second = await callers(pool, 2)
    pool.release(connection)  # to the first, for whom another is being opened
    assert await first is connection
    assert await second is server.all[1]
    release(pool, [await first, await second])
    await pool.close()


@on_jumping_clock
async def test_a_second_release_is_a_defect() -> None:
    pool = FakeServer().pool()
    connection = await pool.acquire()
    pool.release(connection)
    with pytest.raises(RuntimeError, match="released already"):
        pool.release(connection)
    assert pool.idle == 1
    await pool.close()


@on_jumping_clock
async def test_it_knows_how_many_waited_and_for_how_long() -> None:
    server = FakeServer()
    pool = server.pool(1)
    connection = await pool.acquire()
    pool.release(connection)
    await pool.acquire()
    waiting = await callers(pool, 2)
    await asyncio.sleep(0.5)
    pool.release(connection)
    await asyncio.sleep(0.25)
    pool.release(connection)
    await asyncio.gather(*waiting)
    assert pool.waited == 3
    assert pool.wait_seconds == pytest.approx(0.01 + 0.5 + 0.75, abs=1e-4)
    pool.release(connection)
    await pool.close()


# --- cancellation


@on_jumping_clock
async def test_a_cancelled_waiter_is_passed_over() -> None:
    pool = FakeServer().pool(1)
    connection = await pool.acquire()
    first, second = await callers(pool, 2)
    first.cancel()
    pool.release(connection)  # before the first could even notice
    assert await second is connection
    assert first.cancelled()
    assert pool.waiting == 0
    pool.release(connection)
    await pool.close()


@pytest.mark.parametrize("others", [0, 1])
@on_jumping_clock
async def test_a_connection_handed_to_a_caller_who_is_cancelled_at_that_moment_is_not_lost(
    others: int,
) -> None:
    server = FakeServer()
    pool = server.pool(1)
    connection = await pool.acquire()
    first, *rest = await callers(pool, 1 + others)
    pool.release(connection)
    first.cancel()
    await asyncio.sleep(AN_INSTANT)
    assert first.cancelled()
    assert [await task for task in rest] == [connection] * others
    if others:
        pool.release(connection)
    assert pool.idle == 1
    assert len(server.all) == 1
    await pool.close()


@on_jumping_clock
async def test_what_is_opened_for_a_caller_who_is_cancelled_serves_another() -> None:
    server = FakeServer()
    pool = server.pool(1)
    first, second = await callers(pool, 2)
    first.cancel()
    pool.release(await second)
    assert len(server.attempts) == 1
    (third,) = await callers(pool, 1)
    assert await third is server.all[0]
    pool.release(await third)
    await pool.close()


@on_jumping_clock
async def test_nothing_is_opened_for_a_caller_who_was_served_meanwhile() -> None:
    server = FakeServer()
    pool = server.pool(2)
    connection = await pool.acquire()
    caller = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    pool.release(connection)
    assert await caller is connection
    pool.release(connection)
    await asyncio.sleep(1)
    assert len(server.attempts) == 1
    await pool.close()


@on_jumping_clock
async def test_nobody_connects_any_more_when_those_who_waited_have_gone() -> None:
    server = FakeServer()
    server.limit = 0
    pool = server.pool()
    (caller,) = await callers(pool, 1)
    await asyncio.sleep(2)
    tries = len(server.attempts)
    assert tries > 2
    caller.cancel()
    await asyncio.sleep(5)
    assert len(server.attempts) == tries
    assert pool.size == 0
    await pool.close()


# --- idle, old and broken connections


@on_jumping_clock
async def test_after_a_burst_the_surplus_is_closed_and_max_idle_stay() -> None:
    server = FakeServer()
    pool = server.pool(5, max_idle=2, lifetime=20_000)
    burst = await held(pool, 5)
    release(pool, burst)
    await asyncio.sleep(1.1)
    assert pool.idle == pool.size == 2
    assert server.open == set(burst[3:])  # those used last
    assert all(connection.ends == ["close"] for connection in burst[:3])
    await asyncio.sleep(10_000)
    assert pool.size == 2
    await pool.close()


@on_jumping_clock
async def test_callers_who_take_turns_do_not_open_a_connection_for_each_turn() -> None:
    server = FakeServer()
    pool = server.pool(5, max_idle=0)
    for _ in range(20):
        release(pool, await held(pool, 3))
        await asyncio.sleep(0.5)
    assert len(server.all) == 3
    await asyncio.sleep(1)
    assert pool.size == 0
    await pool.close()


@on_jumping_clock
async def test_a_connection_past_its_lifetime_is_replaced_when_it_is_released() -> None:
    server = FakeServer()
    pool = server.pool(1, lifetime=100)
    connection = await pool.acquire()
    await asyncio.sleep(89)
    pool.release(connection)
    assert await pool.acquire() is connection
    await asyncio.sleep(11)
    (waiting,) = await callers(pool, 1)
    pool.release(connection)
    assert await waiting is not connection
    assert connection.ends == ["close"]
    assert server.most == 1  # the old one had to go first
    pool.release(await waiting)
    await pool.close()


@on_jumping_clock
async def test_an_idle_connection_past_its_lifetime_is_closed_though_nobody_asks() -> None:
    server = FakeServer()
    server.limit = 300
    pool = server.pool(300, max_idle=300, lifetime=100)
    release(pool, await held(pool, 200))
    await asyncio.sleep(50)
    release(pool, await held(pool, 300))
    await asyncio.sleep(39)
    assert pool.idle == 300
    await asyncio.sleep(6)
    assert 100 < pool.idle < 300, "200 were opened at once, and are not to end at once"
    await asyncio.sleep(6)
    assert pool.idle == 100
    await asyncio.sleep(100)
    assert pool.size == 0
    assert all(connection.ends == ["close"] for connection in server.all)
    await pool.close()


@on_jumping_clock
async def test_without_a_lifetime_they_live_for_ever() -> None:
    server = FakeServer()
    pool = server.pool(lifetime=0)
    connection = await pool.acquire()
    await asyncio.sleep(1e6)
    pool.release(connection)
    await asyncio.sleep(1e6)
    assert await pool.acquire() is connection
    pool.release(connection)
    await pool.close()


@on_jumping_clock
async def test_an_idle_connection_that_the_server_closed_is_never_handed_out() -> None:
    server = FakeServer()
    pool = server.pool()
    first, second, third = await held(pool, 3)
    release(pool, [first, second, third])
    second.break_()
    third.break_()
    assert await pool.acquire() is first
    assert await pool.acquire() is server.all[3]
    assert second.ends == third.ends == ["abort"]
    release(pool, [first, server.all[3]])
    await pool.close()


@on_jumping_clock
async def test_a_connection_that_is_released_broken_makes_room_for_another() -> None:
    server = FakeServer()
    pool = server.pool(1)
    connection = await pool.acquire()
    (waiting,) = await callers(pool, 1)
    connection.break_()
    pool.release(connection)
    assert connection.ends == ["abort"]
    assert await waiting is server.all[1]
    pool.release(await waiting)
    await pool.close()


@on_jumping_clock
async def test_when_one_was_found_dead_all_that_are_idle_can_be_dropped() -> None:
    server = FakeServer()
    pool = server.pool(3)
    kept, broken, idle = await held(pool, 3)
    release(pool, [broken, idle])
    broken.break_()
    pool.forget_idle()
    assert pool.idle == 0
    fresh = await held(pool, 2)
    assert fresh == server.all[3:]
    assert broken.ends == ["abort"]
    assert idle.ends == ["close"]
    assert kept.ends == []
    assert server.most == 3
    release(pool, [kept, *fresh])
    await pool.close()


@on_jumping_clock
async def test_a_goodbye_that_takes_for_ever_is_cut_short() -> None:
    server = FakeServer()
    server.goodbye = 1e6
    pool = server.pool(1)
    pool.release(await pool.acquire())
    pool.forget_idle()
    (waiting,) = await callers(pool, 1)
    await asyncio.sleep(1.9)
    assert len(server.attempts) == 1, "it still holds its place"
    pool.release(await waiting)
    assert server.all[0].ends == ["close", "abort"]
    server.goodbye = 0.0
    await pool.close()


@on_jumping_clock
async def test_a_goodbye_that_fails_harms_nobody() -> None:
    server = FakeServer()
    server.rude = True
    pool = server.pool(1)
    pool.release(await pool.acquire())
    pool.forget_idle()
    pool.release(await pool.acquire())
    await pool.close()
    assert [connection.ends for connection in server.all] == [["close", "abort"]] * 2


# --- too many callers


@on_jumping_clock
async def test_a_caller_who_gets_no_connection_in_time_is_told_what_to_change() -> None:
    pool = FakeServer().pool(2, timeout=5)
    connections = await held(pool, 2)
    (first,) = await callers(pool, 1)
    await asyncio.sleep(2)
    (second,) = await callers(pool, 1)
    await asyncio.sleep(3.1)
    assert first.done()
    assert not second.done()
    with pytest.raises(StoreUnavailableError) as raised:
        await first
    assert str(raised.value) == (
        "all 2 connections of session store 'x' are in use; try again,"
        " or raise session_stores.x.sql.max_conns"
    )
    pool.release(connections[0])
    assert await second is connections[0]
    release(pool, connections)
    await pool.close()


@on_jumping_clock
async def test_waiting_for_long_is_logged_seldom_with_what_to_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = FakeServer().pool(1, timeout=100)
    connection = await pool.acquire()
    (quick,) = await callers(pool, 1)
    await asyncio.sleep(0.9)
    pool.release(connection)
    await quick
    waiting = await callers(pool, 1)
    await asyncio.sleep(0.9)
    assert warnings(caplog) == []
    waiting += await callers(pool, 1)
    await asyncio.sleep(0.2)
    text = (
        "session store 'x': all 1 connections are in use, {} waiting;"
        " raise session_stores.x.sql.max_conns, or look for slow statements"
    )
    assert warnings(caplog) == [text.format(2)]
    await asyncio.sleep(29)
    waiting += await callers(pool, 1)
    assert len(warnings(caplog)) == 1
    await asyncio.sleep(1)
    assert warnings(caplog) == [text.format(2), text.format(3)]
    for task in waiting:
        pool.release(connection)
        await task
    pool.release(connection)
    await pool.close()


# --- a server that takes no more connections


@on_jumping_clock
async def test_a_server_that_refuses_one_more_lowers_the_ceiling_and_no_caller_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = FakeServer()
    server.limit = 3
    pool = server.pool(10)
    waiting = await callers(pool, 8)
    await asyncio.sleep(0.02)
    assert [task.done() for task in waiting] == [True] * 3 + [False] * 5
    assert pool.ceiling == 3
    for n, task in enumerate(waiting):
        assert task.done()
        pool.release(await task)
        await asyncio.sleep(AN_INSTANT)
        assert pool.waiting == max(0, 4 - n)
    assert len(server.attempts) == 8
    assert warnings(caplog) == [f"{FULL}; going on with fewer than 10"]
    await pool.close()


@on_jumping_clock
async def test_a_caller_who_waits_in_vain_below_the_ceiling_is_not_told_to_raise_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = FakeServer()
    server.limit = 2
    pool = server.pool(10, timeout=5)
    connections = await held(pool, 2)
    with pytest.raises(StoreUnavailableError) as raised:
        await pool.acquire()
    assert str(raised.value) == (
        "all 2 connections of session store 'x' are in use, and no other can be opened now; try again"
    )
    assert raised.value.__cause__ is FULL
    assert warnings(caplog)[1:] == [
        (
            "session store 'x': all 2 connections are in use, 1 waiting;"
            " its server takes no more: raise its limit, or look for slow statements"
        )
    ]
    release(pool, connections)
    await pool.close()


@on_jumping_clock
async def test_a_minute_after_the_last_refusal_one_more_is_tried_and_then_the_next() -> None:
    server = FakeServer()
    server.limit = 2
    pool = server.pool(10, timeout=1000)
    waiting = await callers(pool, 6)
    await asyncio.sleep(0.02)
    tried = len(server.attempts)
    assert pool.ceiling == 2

    await asyncio.sleep(59)
    waiting += await callers(pool, 1)
    assert len(server.attempts) == tried
    await asyncio.sleep(1)
    waiting += await callers(pool, 1)
    assert len(server.attempts) == tried + 1
    await asyncio.sleep(0.02)
    assert pool.ceiling == 2

    server.limit = 5
    await asyncio.sleep(61)
    server.most_connecting = 0
    waiting += await callers(pool, 1)
    await asyncio.sleep(1)
    assert server.most_connecting == 1, "it may be refused at any time"
    assert pool.ceiling == 5
    assert [task.done() for task in waiting] == [True] * 5 + [False] * 4

    server.limit = 100
    await asyncio.sleep(61)
    waiting += await callers(pool, 1)
    connections = await asyncio.gather(*waiting)
    assert pool.ceiling == len(connections) == 10
    release(pool, connections)
    await pool.close()


@on_jumping_clock
async def test_a_full_server_is_asked_again_and_again_where_there_is_no_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = FakeServer()
    server.limit = 0
    server.latency = 0.0
    pool = server.pool(3)
    waiting = await callers(pool, 2)
    await asyncio.sleep(5)
    assert pool.ceiling == 1
    tries = server.attempts[2:]  # the first two were made side by side
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.0, 1.0, 1.0], abs=1e-3)
    assert warnings(caplog) == [f"{FULL}; going on with fewer than 3"]

    server.limit = 1
    pool.release(await waiting[0])
    connection = await waiting[1]
    server.limit = 0
    connection.break_()
    pool.release(connection)
    server.attempts.clear()
    (caller,) = await callers(pool, 1)
    await asyncio.sleep(0.2)
    assert len(server.attempts) == 3, "the pauses are short again"
    caller.cancel()
    await pool.close()


@on_jumping_clock
async def test_a_server_that_stays_full_is_told_at_the_end_of_the_time() -> None:
    server = FakeServer()
    server.limit = 0
    pool = server.pool(timeout=7)
    with pytest.raises(
        StoreUnavailableError,
        match=r"^the server of session store 'x' takes no more connections now; try again$",
    ) as raised:
        await pool.acquire()
    assert raised.value.__cause__ is FULL
    assert 7 <= asyncio.get_running_loop().time() < 7.6
    await pool.close()


# --- a server that cannot be reached


@on_jumping_clock
async def test_without_any_connection_each_caller_gets_the_error_of_a_try_and_one_is_made_at_a_time() -> None:
    server = FakeServer()
    server.down = DOWN
    pool = server.pool(2)
    waiting = await callers(pool, 5)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert results == [DOWN] * 5
    assert len(server.attempts) == 5
    assert server.most_connecting == 2, "nobody knew at first"

    server.most_connecting = 0
    again = await callers(pool, 3)
    await asyncio.gather(*again, return_exceptions=True)
    assert server.most_connecting == 1

    server.down = None
    (connection,) = await held(pool, 1)
    connection.break_()
    pool.release(connection)
    release(pool, await held(pool, 2))
    assert server.most_connecting == 2, "all is well again"
    await pool.close()


@on_jumping_clock
async def test_an_error_that_is_not_ours_reaches_the_caller_too() -> None:
    server = FakeServer()
    server.down = ZeroDivisionError("a defect")
    pool = server.pool()
    with pytest.raises(ZeroDivisionError):
        await pool.acquire()
    server.down = None
    pool.release(await pool.acquire())
    await pool.close()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreOpenError("x", "wrong password"), "failed to connect to session store 'x': wrong password"),
        (ZeroDivisionError("hunter2"), "not connected: ZeroDivisionError"),
    ],
)
@on_jumping_clock
async def test_callers_go_on_waiting_for_a_connection_that_exists(
    caplog: pytest.LogCaptureFixture, error: Exception, told: str
) -> None:
    server = FakeServer()
    pool = server.pool(3)
    connection = await pool.acquire()
    server.down, server.latency = error, 0.0
    waiting = await callers(pool, 2)
    await asyncio.sleep(5)
    assert not any(task.done() for task in waiting)
    assert len(server.attempts) < 13, "it is not hammered"
    assert warnings(caplog)[0] == f"session store 'x' has 1 connections; {told}"
    assert warnings(caplog)[1].endswith("; no other could be opened yet")
    assert len(warnings(caplog)) == 2
    pool.release(connection)
    assert await waiting[0] is connection

    server.down = None
    assert await waiting[1] is server.all[1]
    release(pool, [connection, server.all[1]])
    await pool.close()


@on_jumping_clock
async def test_a_try_that_fails_just_when_the_time_is_over_still_says_why() -> None:
    server = FakeServer()
    server.down, server.latency = DOWN, 10.0
    pool = server.pool(1, timeout=10)
    waiting = await callers(pool, 2)
    with pytest.raises(StoreUnreachableError):
        await waiting[0]
    with pytest.raises(StoreUnavailableError, match=r"^session store 'x' cannot be reached now; try again$"):
        await waiting[1]
    assert asyncio.get_running_loop().time() < 10.6
    await pool.close()


@on_jumping_clock
async def test_a_try_without_an_answer_is_not_waited_for() -> None:
    server = FakeServer()
    server.latency = 1e6
    pool = server.pool(1, timeout=10)
    with pytest.raises(StoreUnavailableError, match="cannot be reached now"):
        await pool.acquire()
    assert asyncio.get_running_loop().time() < 10.6
    await pool.close()
    assert server.connecting == 0


# --- the end


@on_jumping_clock
async def test_closing_ends_the_idle_at_once_and_those_in_use_when_they_are_released() -> None:
    server = FakeServer()
    pool = server.pool()
    used, idle = await held(pool, 2)
    pool.release(idle)
    await pool.close()
    assert idle.ends == ["close"]
    assert used.ends == []
    pool.release(used)
    assert used.ends == ["abort"]
    assert pool.size == 0
    with pytest.raises(StoreUnavailableError, match=r"^the session store is closed$"):
        await pool.acquire()
    await pool.close()


@on_jumping_clock
async def test_closing_tells_who_waits_and_opens_nothing_more() -> None:
    server = FakeServer()
    server.latency = 1e6
    pool = server.pool(2)
    waiting = await callers(pool, 3)
    assert server.connecting == 2
    await pool.close()
    for task in waiting:
        with pytest.raises(StoreUnavailableError, match=r"^the session store is closed$"):
            await task
    assert server.connecting == pool.size == 0
    assert len(server.attempts) == 2


@on_jumping_clock
async def test_a_connection_that_opens_while_the_pool_closes_is_closed() -> None:
    server = FakeServer()
    server.stubborn = True
    pool = server.pool()
    (caller,) = await callers(pool, 1)
    await pool.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await caller
    assert [connection.ends for connection in server.all] == [["abort"]]


@on_jumping_clock
async def test_a_connect_that_is_nearly_done_is_not_broken_off_by_closing() -> None:
    server = FakeServer()
    server.latency = 1.5
    pool = server.pool()
    (caller,) = await callers(pool, 1)
    await pool.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await caller
    assert [connection.ends for connection in server.all] == [["abort"]]


@on_jumping_clock
async def test_closing_waits_for_goodbyes_and_not_for_ever() -> None:
    server = FakeServer()
    server.goodbye = 1.5
    pool = server.pool()
    release(pool, await held(pool, 2))
    await pool.close()
    assert [connection.ends for connection in server.all] == [["close"]] * 2
    assert server.open == set()

    server.goodbye = 1e6
    pool = server.pool()
    release(pool, await held(pool, 2))
    await pool.close()
    assert [connection.ends for connection in server.all[2:]] == [["close", "abort"]] * 2


def test_a_loop_that_ends_without_closing_the_pool_leaves_no_connection_open() -> None:
    server = FakeServer()
    server.goodbye = 1e6

    async def main() -> None:
        pool = server.pool()
        release(pool, await held(pool, 3))
        pool.forget_idle()
        await callers(pool, 1)
        pool.forget_idle()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())
    assert {connection.ends[-1] for connection in server.all} == {"abort"}
    assert server.open == set()


# --- any schedule

MAX_CONNS, MAX_IDLE = 3, 1


class Schedule:
    """Callers, a server and their misfortunes."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.pool = self.server.pool(MAX_CONNS, max_idle=MAX_IDLE, lifetime=40, timeout=10)
        self.callers: Callers = []
        self.queue: Callers = []
        """Those who have asked and not been answered, the first first."""
        self.held: list[FakeConnection] = []

    async def ask(self) -> None:
        caller = asyncio.create_task(self._call())
        self.callers.append(caller)
        self.queue.append(caller)
        await asyncio.sleep(0)

    async def _call(self) -> FakeConnection:
        me = asyncio.current_task()
        assert me is not None
        waited = self.pool.waited
        try:
            connection = await self.pool.acquire()
        except (StorageError, asyncio.CancelledError):
            if me in self.queue:
                self.queue.remove(me)
            raise
        assert connection.usable
        assert connection not in self.held
        if self.pool.waited == waited:
            assert not self.pool.waiting, "others waited for it"
        else:
            assert self.queue[0] is me, "another waited before"
        self.queue.remove(me)
        self.held.append(connection)
        return connection

    def give_back(self, choice: int, *, broken: bool) -> None:
        if self.held:
            connection = self.held.pop(choice % len(self.held))
            if broken:
                connection.break_()
            self.pool.release(connection)

    def cancel(self, choice: int) -> None:
        if self.queue:
            self.queue.pop(choice % len(self.queue)).cancel()

    def break_one(self, choice: int) -> None:
        """Of those that are idle."""
        if self.pool.idle:
            self.pool._idle[choice % self.pool.idle].connection.break_()

    async def step(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("ask",):
                await self.ask()
            case ("give back", int(choice), bool(broken)):
                self.give_back(choice, broken=broken)
            case ("cancel", int(choice)):
                self.cancel(choice)
            case ("break", int(choice)):
                self.break_one(choice)
            case ("forget idle",):
                self.pool.forget_idle()
            case ("server", limit, down, latency, goodbye):
                self.server.limit, self.server.down = limit, down
                self.server.latency, self.server.goodbye = latency, goodbye
            case ("time", float(seconds)):
                await asyncio.sleep(seconds)
        self.check()

    def check(self) -> None:
        assert self.server.most <= MAX_CONNS
        assert self.pool.size <= MAX_CONNS
        assert 1 <= self.pool.ceiling <= MAX_CONNS
        assert not (self.pool.idle and self.pool.waiting)

    async def recover(self) -> None:
        """Everything is well again, so everybody must be served."""
        self.server.limit, self.server.down = 100, None
        self.server.latency = self.server.goodbye = 0.01
        for _ in range(30):  # seconds: longer than any try to connect takes, or any caller waits
            while self.held:
                self.give_back(0, broken=False)
            await asyncio.sleep(1)
        assert not self.queue
        await asyncio.sleep(61)
        assert self.pool.idle <= MAX_IDLE
        connections = await held(self.pool, MAX_CONNS)
        assert len(set(connections)) == self.pool.ceiling == self.pool.size == MAX_CONNS
        release(self.pool, connections)

    async def close(self) -> None:
        await self.pool.close()
        for answer in await asyncio.gather(*self.callers, return_exceptions=True):
            assert isinstance(answer, FakeConnection | StorageError | asyncio.CancelledError), answer
        assert not self.queue
        while self.held:
            self.give_back(0, broken=False)
        assert self.pool.size == self.server.connecting == len(self.server.open) == 0
        for connection in self.server.all:
            assert connection.ends in (["close"], ["abort"], ["close", "abort"]), connection


CHOICE = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask")),
        st.tuples(st.just("ask")),
        st.tuples(st.just("give back"), CHOICE, st.booleans()),
        st.tuples(st.just("give back"), CHOICE, st.just(False)),
        st.tuples(st.just("cancel"), CHOICE),
        st.tuples(st.just("break"), CHOICE),
        st.tuples(st.just("forget idle")),
        st.tuples(
            st.just("server"),
            st.sampled_from([0, 1, 2, 100, 100]),
            st.sampled_from([None, None, DOWN]),
            st.sampled_from([0.0, 0.01, 0.01, 20.0]),
            st.sampled_from([0.0, 0.01, 3.0]),
        ),
        st.tuples(st.just("time"), st.sampled_from([0.0, AN_INSTANT, 0.01, 0.3, 1.0, 12.0, 70.0])),
    ),
    min_size=20,  # or most would be too short for much to happen
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, in_the_middle=st.booleans())
@on_jumping_clock
async def test_whatever_happens_nobody_overtakes_and_nothing_is_lost(
    steps: list[tuple[Any, ...]], in_the_middle: bool
) -> None:
    schedule = Schedule()
    for step in steps:
        await schedule.step(step)
    if not in_the_middle:
        await schedule.recover()
    await schedule.close()
