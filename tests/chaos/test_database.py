"""What must not be in the tables is found, whatever keys they declare."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.chaos.database import KEYS, USER, MessageRow, SessionRow, TurnRow, assemble, queries
from tests.chaos.history import Place

TABLES = """
  CREATE TABLE sessions (agent_id, user_id, id, last_seq, next_ticket, waiting, lease_owner, lease_turn_id);
  CREATE TABLE turns
    (agent_id, user_id, session_id, id, state, reason, superseded, first_seq, last_seq, replica_id,
    attempt, earlier_runs);
  CREATE TABLE messages
    (id INTEGER PRIMARY KEY, agent_id, user_id, session_id, turn_id, seq, message_id, retry, role, content,
    ticket, run_state, unanswered);
  CREATE TABLE replicas (id);
  INSERT INTO replicas VALUES ('r');
"""
SESSION = "INSERT INTO sessions VALUES ('ant', 'una', 's', 1, 0, 0, NULL, NULL)"
TURN = "INSERT INTO turns VALUES ('ant', 'una', 's', 't', 'failed', 'crashed', 0, 1, 1, NULL, 1, NULL)"
MESSAGE = """
  INSERT INTO messages (agent_id, user_id, session_id, turn_id, seq, message_id, retry, role, content,
    unanswered)
  VALUES ('ant', 'una', 's', 't', {seq}, {message_id}, 0, 1, '[{{"text": "hel"}}, {{"text": "lo"}}]',
    'crashed')"""
FIRST = MESSAGE.format(seq=1, message_id="'m'")
SOUND = (SESSION, TURN, FIRST)


@pytest.fixture
def tables() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(TABLES)
        yield connection


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        (SOUND, set()),
        # What waits has no number yet, and what an agent says no id.
        ((*SOUND, *[MESSAGE.format(seq="NULL", message_id="NULL")] * 2), set()),
        ((SESSION, FIRST), {"messages are of no turn"}),
        ((TURN,), {"turns are of no session"}),
        ((TURN, FIRST), {"messages are of no session", "turns are of no session"}),
        ((*SOUND, MESSAGE.format(seq=1, message_id="'n'")), {"sequence numbers are there twice"}),
        ((*SOUND, MESSAGE.format(seq=2, message_id="'m'")), {"message ids are there twice"}),
        ((SESSION, SESSION), {"sessions are there twice"}),
        ((SESSION, TURN, TURN), {"turns are there twice"}),
    ],
)
def test_damage_is_found(tables: sqlite3.Connection, statements: tuple[str, ...], found: set[str]) -> None:
    for statement in statements:
        tables.execute(statement)
    counts = {what: tables.execute(query).fetchone()[0] for what, query in KEYS.items()}
    assert {what for what, count in counts.items() if count} == found


@pytest.mark.parametrize("only", [None, {Place("ant", "una", "s"), Place("bee", "uwe", "s1.2")}])
def test_rows_are_read_as_they_are(tables: sqlite3.Connection, only: set[Place] | None) -> None:
    for statement in SOUND:
        tables.execute(statement)
    snapshot = assemble(1, 2, [tables.execute(query).fetchall() for query in queries(only)])
    assert snapshot.replicas == ["r"]
    assert set(snapshot.places) == {Place("ant", "una", "s")}
    rows = snapshot.at(Place("ant", "una", "s"))
    assert rows.session == SessionRow(1, 0, 0, None, None)
    assert rows.turns == {"t": TurnRow("t", "failed", "crashed", False, 1, 1, None, 1)}
    assert rows.messages == [MessageRow("t", 1, "m", 0, USER, "hello", None, None, "crashed")]


@pytest.mark.parametrize("only", [set[Place](), {Place("ant", "una", "other")}])
def test_what_is_not_asked_for_is_not_read(tables: sqlite3.Connection, only: set[Place]) -> None:
    for statement in SOUND:
        tables.execute(statement)
    assert not assemble(1, 2, [tables.execute(query).fetchall() for query in queries(only)]).places
