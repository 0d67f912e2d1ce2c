"""The tables as they are in the file, read with the standard library alone."""

import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.kill.history import Place

USER, AGENT = 1, 2


class SessionRow(NamedTuple):
    last_seq: int
    next_ticket: int
    waiting: int
    lease_owner: str | None
    lease_turn_id: str | None


class TurnRow(NamedTuple):
    id: str
    state: str
    reason: str | None
    superseded: bool
    first_seq: int | None
    last_seq: int | None
    replica_id: str | None


class MessageRow(NamedTuple):
    turn_id: str
    seq: int | None
    message_id: str | None
    retry: int
    role: int
    text: str
    ticket: int | None
    run_state: str | None
    unanswered: str | None

    @property
    def waits(self) -> bool:
        return self.seq is None and self.run_state is None


@dataclass(slots=True)
class PlaceRows:
    session: SessionRow | None = None
    turns: dict[str, TurnRow] = field(default_factory=dict)
    messages: list[MessageRow] = field(default_factory=list)
    """In the order in which they were stored."""


@dataclass(slots=True)
class Snapshot:
    """One consistent look. It was taken after `since` and before `until`."""

    since: float
    until: float
    places: dict[Place, PlaceRows]
    replicas: list[str]

    def at(self, place: Place) -> PlaceRows:
        return self.places.get(place) or PlaceRows()

    @property
    def open_turns(self) -> int:
        return sum(
            turn.state in ("working", "submitted")
            for rows in self.places.values()
            for turn in rows.turns.values()
        )


_SESSIONS = """
  SELECT agent_id, user_id, id, last_seq, next_ticket, waiting, lease_owner, lease_turn_id FROM sessions"""
_TURNS = """
  SELECT agent_id, user_id, session_id, id, state, reason, superseded, first_seq, last_seq, replica_id
  FROM turns"""
_MESSAGES = """
  SELECT agent_id, user_id, session_id, turn_id, seq, message_id, retry, role, content, ticket, run_state,
    unanswered
  FROM messages"""


def read(path: Path, only: Collection[Place] | None = None) -> Snapshot:
    """Everything, or what belongs to some places. Raises `sqlite3.Error` if the file cannot be read now."""
    since = time.monotonic()
    places: defaultdict[Place, PlaceRows] = defaultdict(PlaceRows)
    with closing(_open(path)) as connection:
        connection.execute("BEGIN")
        for row in _rows(connection, _SESSIONS, "id", only):
            places[Place(*row[:3])].session = SessionRow(*row[3:])
        for row in _rows(connection, _TURNS, "session_id", only):
            places[Place(*row[:3])].turns[row[3]] = TurnRow(*row[3:])
        for row in _rows(connection, _MESSAGES, "session_id", only, order="id"):
            message = MessageRow(*row[3:])
            places[Place(*row[:3])].messages.append(message._replace(text=_text(message.text)))
        replicas = [replica for (replica,) in connection.execute("SELECT id FROM replicas")]
    return Snapshot(since, time.monotonic(), dict(places), replicas)


def faults_of_the_file(path: Path) -> list[str]:
    """What SQLite itself finds wrong."""
    with closing(_open(path)) as connection:
        found = [line for (line,) in connection.execute("PRAGMA integrity_check")]
    return [] if found == ["ok"] else found


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10, isolation_level=None)


def _rows(
    connection: sqlite3.Connection,
    query: str,
    session: str,
    only: Collection[Place] | None,
    order: str | None = None,
) -> list[tuple[Any, ...]]:
    tail = f" ORDER BY {order}" if order else ""
    if only is None:
        return connection.execute(f"{query}{tail}").fetchall()
    one = f"{query} WHERE agent_id = ? AND user_id = ? AND {session} = ?{tail}"
    return [row for place in sorted(only) for row in connection.execute(one, place)]


def _text(content: str) -> str:
    return "".join(part["text"] for part in json.loads(content))
