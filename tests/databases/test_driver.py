"""What the driver for servers tells, undoes and survives, on each server."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial

import pytest

from hector.domain.errors import (
    LeaseLostError,
    OutcomeUnknownError,
    StorageError,
    StoreUnavailableError,
)
from hector.domain.turns import Begun
from hector.storage import liveness
from hector.storage import statements as sql
from hector.storage.mysql import connection as mysql
from hector.storage.opening import open_memory, open_server
from hector.storage.operations import Operation, Step, execute, remembering
from hector.storage.postgres import connection as postgres
from hector.storage.reading import key_parameters
from hector.storage.server import driver as server
from hector.storage.server.driver import Connection, ConnectionLostError, ServerDriver
from hector.storage.settings import Tls
from hector.storage.store import SqlSessionStore
from tests.contract.actor import KEY, WINDOW, Actor, dump, texts
from tests.databases.proxy import Proxy, proxy_to
from tests.databases.test_lost_answers import MOST_ROUND_TRIPS
from tests.servers import Database, MariaDbServer


@dataclass
class Stage:
    db: Database
    proxy: Proxy
    store: SqlSessionStore
    driver: ServerDriver
    one: Actor


@pytest.fixture
async def stage(server_db: Database) -> AsyncIterator[Stage]:
    """With one connection, so that whoever comes next gets the one that was left."""
    async with proxy_to(server_db.host, server_db.port) as proxy:
        settings = server_db.settings(port=proxy.port, max_conns=1, max_idle=1, tls=Tls("disable"))
        store = await open_server(server_db.driver, settings)
        driver = store._driver
        assert isinstance(driver, ServerDriver)
        yield Stage(server_db, proxy, store, driver, await Actor(store).join())
        await store.close()


# --- an operation that fails


class _BrokenOffError(Exception):
    pass


async def test_what_an_operation_wrote_before_it_failed_is_undone(stage: Stage) -> None:
    await stage.one.turn()
    before = await dump(stage.store)

    def write_and_fail() -> Operation[None]:
        yield from execute(sql.SET_WAITING, key_parameters(KEY) | {"waiting": 7})
        raise _BrokenOffError

    with pytest.raises(_BrokenOffError):
        await stage.driver.write(write_and_fail)
    assert await dump(stage.store) == before
    assert isinstance(await stage.one.send("next"), Begun), "the connection is fit for the next"


# --- a commit without an answer


@pytest.mark.parametrize("operation", ["begin", "cancel"])
async def test_a_commit_without_an_answer_is_never_told_as_not_done(
    stage: Stage, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can find out what became of it, as the server takes no further connection."""
    monkeypatch.setattr(server, "_RESOLVE_WITHIN", 0.2)
    key = replace(KEY, session_id="elsewhere")
    begun = await stage.one.begin(key=key)
    arrival = stage.one.arrival()

    async def act() -> object:
        if operation == "begin":
            return await stage.store.accept(arrival, WINDOW)
        return await stage.store.cancel(key, begun.lease.turn_id)

    for number in range(MOST_ROUND_TRIPS):
        await stage.store.session(KEY)  # connected again
        stage.proxy.arm("answer", number)
        stage.proxy.refuses = True
        (told,) = await asyncio.gather(act(), return_exceptions=True)
        assert stage.proxy.fired
        stage.proxy.arm()
        stage.proxy.refuses = False
        assert isinstance(told, StoreUnavailableError | OutcomeUnknownError)
        if operation == "begin":
            done = await stage.store.session(KEY) is not None
        else:
            done = await _is_free(stage.store, begun)
        if done:
            assert isinstance(told, OutcomeUnknownError)
            return
    pytest.fail("no answer to a commit was lost")


async def _is_free(store: SqlSessionStore, begun: Begun) -> bool:
    session = await store.session(begun.lease.key)
    assert session
    return session.running_turn_id is None


async def test_who_lost_the_lease_is_told_so_also_after_a_lost_answer(stage: Stage) -> None:
    begun = await stage.one.begin()
    assert await stage.store.cancel(KEY, begun.lease.turn_id)
    for number in range(MOST_ROUND_TRIPS):
        await stage.store.session(KEY)  # connected again
        stage.proxy.arm("answer", number)
        with pytest.raises(LeaseLostError):
            await stage.one.answer(begun)
        if not stage.proxy.fired:
            assert number >= 1, "at least one answer was lost"
            return
    pytest.fail(f"it takes more than {MOST_ROUND_TRIPS} round trips")


# --- a replica that stands still


async def test_a_replica_that_stops_in_a_transaction_holds_nobody_up_and_knows_it_when_it_goes_on(
    server_db: Database,
) -> None:
    settings = server_db.settings(statement_timeout=5)
    stopped, store = (
        await open_server(server_db.driver, settings),
        await open_server(server_db.driver, settings),
    )
    await Actor(store).turn("before")
    driver = stopped._driver
    assert isinstance(driver, ServerDriver)
    connection = await _holding_the_session(driver)
    # Its row is free before others are told that it is locked.
    assert isinstance(await (await Actor(store).join()).send(), Begun)
    with pytest.raises(ConnectionLostError):
        await connection.commit()
    driver.pool.release(connection)
    await stopped.close()
    await store.close()


async def _holding_the_session(driver: ServerDriver) -> Connection:
    connection: Connection = await driver.pool.acquire()
    await connection.begin("write")
    await connection.run([Step(sql.LOCK_SESSION, key_parameters(KEY))])
    return connection


# --- reading


async def test_all_that_one_reading_operation_sees_is_of_one_moment(server_db: Database) -> None:
    store = await open_server(server_db.driver, server_db.settings())
    one = await Actor(store).join()
    await one.turn()
    driver = store._driver
    assert isinstance(driver, ServerDriver)
    connection: Connection = await driver.pool.acquire()
    await connection.begin("read")
    step = Step(sql.GET_SESSION, key_parameters(KEY))
    [before] = await connection.run([step])
    await one.turn("meanwhile")
    [again] = await connection.run([step])
    assert [*map(tuple, again.rows)] == [*map(tuple, before.rows)]
    await connection.commit()
    driver.pool.release(connection)
    await store.close()


# --- connections that the network has forgotten


async def test_after_one_silent_connection_the_idle_ones_are_not_tried_one_by_one(
    server_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (postgres, mysql):
        monkeypatch.setattr(module, "GRACE", -0.5)
    async with proxy_to(server_db.host, server_db.port) as proxy:
        settings = server_db.settings(
            port=proxy.port, max_conns=6, max_idle=6, statement_timeout=1, tls=Tls("disable")
        )
        store = await open_server(server_db.driver, settings)
        one = await Actor(store).join()
        await one.turn()
        driver = store._driver
        assert isinstance(driver, ServerDriver)
        lent = [await driver.pool.acquire() for _ in range(5)]
        for connection in lent:
            driver.pool.release(connection)
        assert driver.pool.idle >= 5
        for writer in proxy._writers:
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket

        assert await store.session(KEY)
        assert isinstance(await one.send(), Begun)
        await store.close()


# --- the statements that are whole transactions do as the others


async def test_a_message_makes_its_session_the_one_that_changed_last(stage: Stage) -> None:
    older, newer = (replace(KEY, session_id=name) for name in ("older", "newer"))
    begun = [await stage.one.begin(key=key) for key in (older, newer)]
    for each in begun:
        await stage.one.answer(each)
    await stage.one.begin(key=older)
    page = await stage.store.sessions(agent_id=KEY.agent_id, user_id=None, limit=1)
    assert [session.key for session in page.sessions] == [older]


async def test_a_turn_is_given_the_summary_and_what_came_after_it(stage: Stage) -> None:
    for number in range(3):
        await stage.one.turn(f"m{number}")
    schema = await _schema(stage.db)
    await stage.db.run(
        f"INSERT INTO {schema}summaries"
        " (agent_id, user_id, session_id, through_seq, content, tokens, created_at)"
        " VALUES ('a', 'u', 's', 4, 'so far', 1, CURRENT_TIMESTAMP)",
        f"UPDATE {schema}sessions SET summarized_through_seq = 4",
    )
    tail = (await stage.one.begin("next")).tail
    assert tail.summary
    assert (tail.summary.through_seq, tail.summary.text) == (4, "so far")
    assert texts(tail.messages) == ["m2", "re: m2"]


async def _schema(db: Database) -> str:
    """In front of a table's name."""
    if db.driver == "mysql":
        return ""
    ((schema,),) = await db.run("SELECT schemaname FROM pg_tables WHERE tablename = 'messages'")
    return f'"{schema}".'


# --- errors, as they must be told


async def test_a_session_that_others_hold_is_told_as_such_after_one_lock_timeout(
    server_db: Database,
) -> None:
    store = await open_server(server_db.driver, server_db.settings(statement_timeout=3))
    one = await Actor(store).join()
    begun = await one.begin()
    driver = store._driver
    assert isinstance(driver, ServerDriver)
    connection = await _holding_the_session(driver)
    holding = asyncio.ensure_future(_keep(connection))
    told = await asyncio.gather(one.send(), one.answer(begun), return_exceptions=True)
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    connection.abort()
    driver.pool.release(connection)
    # It was not done, and that is known.
    assert [type(error) for error in told] == [StoreUnavailableError] * 2
    await store.close()


async def _keep(connection: Connection) -> None:
    """Use the transaction, or the server would end it."""
    while True:
        await asyncio.sleep(0.2)
        await connection.run([Step(sql.LOCK_SESSION, key_parameters(KEY))])


async def test_a_privilege_that_was_taken_away_is_named_and_not_tried_again(stage: Stage) -> None:
    await stage.one.turn()
    schema = await _schema(stage.db)
    if stage.db.driver == "postgres":
        await stage.db.run(f'REVOKE INSERT ON {schema}messages FROM "{stage.db.user}"', admin=True)
    else:
        name, database = stage.db.user, stage.db.database
        await stage.db.run(f"REVOKE INSERT ON `{database}`.* FROM '{name}'@'%'", admin=True)
        stage.proxy.cut()
    with pytest.raises(StorageError, match="lacks a privilege") as told:
        await stage.one.send()
    assert not told.value.retryable


async def test_a_server_without_room_for_another_prepared_statement_is_out_of_resources(
    own_mysql: MariaDbServer,
) -> None:
    db = await own_mysql.create_database()
    store = await open_server("mysql", db.settings())
    await db.run("SET GLOBAL max_prepared_stmt_count = 3", admin=True)
    one = await Actor(store).join()
    with pytest.raises(StoreUnavailableError):
        await one.turn()
    await store.close()


# --- what an operation remembers of its earlier run


async def test_a_replica_that_beat_after_all_is_not_told_to_be_dead() -> None:
    """Its row was deleted, and that was rolled back; then it beat."""
    store = open_memory()
    one = await Actor(store).join()
    (row,) = await store.replicas()
    declare = remembering(partial(liveness.declare_dead, row))

    def declare_and_fail() -> Operation[None]:
        yield from declare()
        raise _BrokenOffError

    with pytest.raises(_BrokenOffError):
        await store._driver.write(declare_and_fail)
    assert await one.store.beat(one.id)
    assert await store._driver.write(declare) == 0
    await store.close()


# --- one busy session, and all others


async def test_a_session_that_is_held_leaves_others_and_the_heartbeat_their_connections(
    server_db: Database,
) -> None:
    store = await open_server(
        server_db.driver, server_db.settings(max_conns=4, max_idle=4, connect_timeout=1)
    )
    one = await Actor(store).join()
    await one.turn("before")
    driver = store._driver
    assert isinstance(driver, ServerDriver)
    connection = await _holding_the_session(driver)
    sending = [asyncio.ensure_future(one.send(f"m{number}")) for number in range(6)]
    await asyncio.wait(sending, timeout=0.2)  # none of them comes to its end
    try:
        assert await one.store.beat(one.id)
        assert isinstance(await one.send(key=replace(KEY, session_id="other")), Begun)
    finally:
        await connection.roll_back()
        driver.pool.release(connection)
        await asyncio.gather(*sending, return_exceptions=True)
        await store.close()
