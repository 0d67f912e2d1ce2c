"""The floor of a turn on PostgreSQL and MariaDB: the driver alone, with the same statements and commits."""

import asyncio
import uuid
from typing import Any, Protocol

import asyncmy
import asyncpg

from benchmarks.turns import CONTENT, WINDOW
from hector.domain.ids import new_turn_id
from tests.servers import Database


class Floor(Protocol):
    async def turn(self, session: str) -> None: ...

    async def close(self) -> None: ...


_PG_NOW = "timezone('utc', clock_timestamp())"
_PG_BEGIN = f"""
WITH leased AS (
  INSERT INTO {{schema}}.sessions AS s (id, agent_id, user_id, metadata, created_at, updated_at, incarnation, last_seq,
    next_ticket, waiting, lease_owner, lease_turn_id, lease_epoch, summarized_through_seq, indexed_through_seq)
  VALUES ($3, $1, $2, '{{{{}}}}', {_PG_NOW}, {_PG_NOW}, '', 1, 0, 0, $4, $5, 1, 0, 0)
  ON CONFLICT (agent_id, user_id, id) DO UPDATE SET lease_owner = $4, lease_turn_id = $5,
    lease_epoch = s.lease_epoch + 1, last_seq = s.last_seq + 1, updated_at = {_PG_NOW}
  WHERE s.lease_turn_id IS NULL AND s.waiting = 0 RETURNING lease_epoch, last_seq),
begun AS (
  INSERT INTO {{schema}}.turns (agent_id, user_id, session_id, id, state, retryable, attempt, epoch, superseded,
    first_seq, input_tokens, output_tokens, replica_id, created_at, started_at)
  SELECT $1, $2, $3, $5, 'working', false, 1, lease_epoch, false, last_seq, 0, 0, $4, {_PG_NOW}, {_PG_NOW}
  FROM leased),
asked AS (
  INSERT INTO {{schema}}.messages (agent_id, user_id, session_id, seq, turn_id, message_id, retry, role, content,
    tokens, created_at)
  SELECT $1, $2, $3, last_seq, $5, $6, 0, 1, $7, 80, {_PG_NOW} FROM leased)
SELECT lease_epoch, last_seq FROM leased"""
_PG_TAIL = """
SELECT seq, turn_id, message_id, role, content, metadata, tokens, unanswered FROM {schema}.messages
WHERE agent_id = $1 AND user_id = $2 AND session_id = $3 AND seq > $4 AND seq < $5
ORDER BY seq DESC LIMIT $6"""
_PG_END = f"""
WITH held AS (
  UPDATE {{schema}}.sessions SET last_seq = $7 + 1, lease_owner = NULL, lease_turn_id = NULL, updated_at = {_PG_NOW}
  WHERE agent_id = $1 AND user_id = $2 AND id = $3 AND lease_owner = $4 AND lease_turn_id = $5 AND lease_epoch = $6
    AND last_seq = $7 RETURNING last_seq),
answered AS (
  INSERT INTO {{schema}}.messages (agent_id, user_id, session_id, seq, turn_id, retry, role, content, tokens,
    created_at)
  SELECT $1, $2, $3, last_seq, $5, 0, 2, $8, 80, {_PG_NOW} FROM held),
ended AS (
  UPDATE {{schema}}.turns SET state = 'completed', last_seq = $7 + 1, replica_id = NULL, ended_at = {_PG_NOW}
  FROM held WHERE agent_id = $1 AND user_id = $2 AND session_id = $3 AND id = $5)
SELECT last_seq FROM held"""


class PostgresFloor:
    """Three prepared statements, each on the connection that became free last."""

    def __init__(self) -> None:
        self._free: asyncio.LifoQueue[list[Any]] = asyncio.LifoQueue()
        self._connections: list[asyncpg.Connection[Any]] = []
        self._owner = str(uuid.uuid4())

    async def open(self, db: Database, schema: str, connections: int) -> "PostgresFloor":
        for _ in range(connections):
            connection = await asyncpg.connect(
                host=db.host,
                port=db.port,
                user=db.user,
                password=db.password,
                database=db.database,
                ssl=False,
                # As ours; planned for each call, it reads the more of a history the longer that is.
                server_settings={"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"},
            )
            self._connections.append(connection)
            texts = [text.format(schema=schema) for text in (_PG_BEGIN, _PG_TAIL, _PG_END)]
            self._free.put_nowait([await connection.prepare(text) for text in texts])
        return self

    async def turn(self, session: str) -> None:
        turn, key = new_turn_id(), ("a", "u", session)
        statements = await self._free.get()
        begin, tail, _ = statements
        epoch, seq = (await begin.fetch(*key, self._owner, turn, uuid.uuid4().hex, CONTENT))[0]
        await tail.fetch(*key, 0, seq, WINDOW)
        self._free.put_nowait(statements)
        statements = await self._free.get()
        assert await statements[2].fetch(*key, self._owner, turn, epoch, seq, CONTENT)
        self._free.put_nowait(statements)

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()


_MY_KEY = "agent_id=? AND user_id=? AND session_id=?"
_MY_SESSION = "agent_id=? AND user_id=? AND id=?"
_MY_NOW = "utc_timestamp(6)"
_MY = (
    f"SELECT lease_owner, lease_turn_id, lease_epoch, last_seq, next_ticket, waiting, incarnation FROM sessions WHERE {_MY_SESSION} FOR UPDATE",
    "SELECT m.turn_id, m.content, t.state FROM messages m JOIN turns t ON t.agent_id=m.agent_id AND t.user_id=m.user_id AND t.session_id=m.session_id AND t.id=m.turn_id WHERE m.agent_id=? AND m.user_id=? AND m.session_id=? AND m.message_id=? ORDER BY m.retry DESC LIMIT 1",
    f"UPDATE sessions SET lease_owner=?, lease_turn_id=?, lease_epoch=?, last_seq=?, updated_at={_MY_NOW} WHERE {_MY_SESSION}",
    f"INSERT INTO turns (agent_id, user_id, id, session_id, state, retryable, attempt, epoch, superseded, first_seq, input_tokens, output_tokens, replica_id, created_at, started_at) VALUES (?,?,?,?,'working',0,1,?,0,?,0,0,?,{_MY_NOW},{_MY_NOW})",
    f"INSERT INTO messages (agent_id, user_id, session_id, seq, turn_id, message_id, retry, role, content, tokens, created_at) VALUES (?,?,?,?,?,?,0,?,?,?,{_MY_NOW})",
    f"SELECT seq, turn_id, message_id, role, content, metadata, tokens, unanswered FROM messages WHERE {_MY_KEY} AND seq>0 AND seq<? ORDER BY seq DESC LIMIT {WINDOW}",
    f"UPDATE sessions SET last_seq=?, lease_owner=NULL, lease_turn_id=NULL, updated_at={_MY_NOW} WHERE {_MY_SESSION} AND lease_owner=? AND lease_turn_id=? AND lease_epoch=? AND last_seq=?",
    f"UPDATE turns SET state='completed', last_seq=?, replica_id=NULL, ended_at={_MY_NOW} WHERE {_MY_KEY} AND id=?",
)


async def _prepare(connection: Any, text: str) -> Any:
    return await connection.prepare(text)


class MariaDbFloor:
    """Nine prepared statements and two commits, each transaction on the connection that became free last."""

    def __init__(self) -> None:
        self._free: asyncio.LifoQueue[tuple[Any, list[Any]]] = asyncio.LifoQueue()
        self._connections: list[Any] = []
        self._owner = str(uuid.uuid4())

    async def open(self, db: Database, connections: int) -> "MariaDbFloor":
        for _ in range(connections):
            connection = await asyncmy.connect(
                host=db.host,
                port=db.port,
                user=db.user,
                password=db.password,
                database=db.database,
                autocommit=False,
                charset="utf8mb4",
                init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            )
            self._connections.append(connection)
            self._free.put_nowait((connection, [await _prepare(connection, text) for text in _MY]))
        return self

    async def turn(self, session: str) -> None:
        turn, message, key = new_turn_id(), uuid.uuid4().hex, ("a", "u", session)
        connection, statements = await self._free.get()
        lock, seen, lease, insert_turn, insert_message, tail, release, done = statements
        _, _, epoch, seq, *_ = (await lock.execute(key)).rows[0]
        await seen.execute((*key, message))
        epoch, seq = epoch + 1, seq + 1
        await lease.execute((self._owner, turn, epoch, seq, *key))
        await insert_turn.execute(("a", "u", turn, session, epoch, seq, self._owner))
        await insert_message.execute((*key, seq, turn, message, 1, CONTENT, 80))
        await tail.execute((*key, seq))
        await connection.commit()
        self._free.put_nowait((connection, statements))
        connection, statements = await self._free.get()
        lock, seen, lease, insert_turn, insert_message, tail, release, done = statements
        await release.execute((seq + 1, *key, self._owner, turn, epoch, seq))
        await insert_message.execute((*key, seq + 1, turn, None, 2, CONTENT, 80))
        await done.execute((seq + 1, *key, turn))
        await connection.commit()
        self._free.put_nowait((connection, statements))

    async def close(self) -> None:
        for connection in self._connections:
            await connection.ensure_closed()
