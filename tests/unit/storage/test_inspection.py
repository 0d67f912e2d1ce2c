"""The inspection commands of the documentation, on a file that was filled by turns."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hector.storage.opening import open_sqlite
from hector.storage.sqlite import SqliteSettings
from tests.contract.actor import Actor, call


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "sessions.db"
    store = await open_sqlite("main", SqliteSettings(path))
    actor = await Actor(store).join()
    await actor.turn("Remember: my project ID is ALPHA-789")
    begun = await actor.begin("é")
    await store.append(begun.lease, [call("look")])
    await store.close()
    return path


@pytest.mark.parametrize(
    ("command", "rows"),
    [
        ("SELECT COUNT(*) FROM sessions;", [(1,)]),
        ("SELECT id, agent_id FROM sessions WHERE id='s';", [("s", "a")]),
        ("SELECT session_id, role FROM messages;", [("s", 1), ("s", 2), ("s", 1), ("s", 2)]),
        (
            "SELECT session_id, role, substr(content, 1, 50) FROM messages LIMIT 1;",
            [("s", 1, '[{"text": "Remember: my project ID is ALPHA-789"}]')],
        ),
        ("SELECT content FROM messages WHERE id = 3;", [('[{"text": "é"}]',)]),
        ("SELECT metadata FROM sessions;", [("{}",)]),
        (
            "SELECT name FROM pragma_index_list('sessions') WHERE name LIKE 'idx_%' ORDER BY name;",
            [("idx_sessions_agent_id",), ("idx_sessions_updated_at",)],
        ),
        (
            "SELECT name FROM pragma_index_info('idx_messages_session_id');",
            [("session_id",)],
        ),
        ("SELECT count(*) FROM sessions WHERE created_at > datetime('now', '-1 hour');", [(1,)]),
        ("SELECT 1;", [(1,)]),
        ("PRAGMA foreign_key_check;", []),
        ("PRAGMA integrity_check;", [("ok",)]),
    ],
)
async def test_a_command_of_the_documentation_works(
    database: Path, command: str, rows: list[tuple[object, ...]]
) -> None:
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute(command).fetchall() == rows


async def test_times_are_utc_with_milliseconds(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        ((_, _, created),) = connection.execute("SELECT id, agent_id, created_at FROM sessions;").fetchall()
        ((same,),) = connection.execute(
            "SELECT strftime('%Y-%m-%d %H:%M:%f', created_at) = created_at FROM sessions;"
        ).fetchall()
    assert same, created
