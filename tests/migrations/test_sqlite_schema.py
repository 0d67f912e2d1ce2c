"""The schema of a database file: made, found, migrated, or refused with a reason."""

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, pool

from hector.domain.errors import StoreOpenError
from hector.storage.migrate import HECTOR, VERSION_TABLE, alembic_config, migrate, upgrade_sqlite
from hector.storage.opening import open_sqlite
from hector.storage.sqlite import SqliteSettings
from hector.storage.store import SqlSessionStore
from hector.storage.tables import metadata
from tests.contract.actor import KEY, Actor, history
from tests.migrations.history import LATER
from tests.migrations.test_server_schema import OLD_STATEMENTS

CHECKOUT = Path(__file__).parents[2]

SPEC_TABLES = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL,
    metadata TEXT,
    created_at TIMESTAMP,
    updated_at TIMESTAMP
);

CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL,
    role INTEGER NOT NULL,
    content TEXT NOT NULL,
    created_at TIMESTAMP,
    FOREIGN KEY (session_id) REFERENCES sessions(id)
);
"""


def connect(path: Path | str = ":memory:") -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def migrated(connection: sqlite3.Connection, revision: str = "head") -> None:
    """By the migrations, one after the other, as an old database is."""
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=pool.StaticPool)
    event.listen(engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as transaction:
        migrate(transaction, revision)


def described(connection: sqlite3.Connection) -> Mapping[str, object]:
    """All that makes a schema, in a form that does not depend on how it was written."""
    names = [
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
    ]
    schema: dict[str, object] = {}
    for table in names:
        ((sql,),) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchall()
        indexes = {}
        for _, name, unique, origin, partial in connection.execute(f"PRAGMA index_list('{table}')"):
            columns = connection.execute(f"PRAGMA index_xinfo('{name}')").fetchall()
            ((text,),) = connection.execute(
                "SELECT sql FROM sqlite_master WHERE name = ?", (name,)
            ).fetchall()
            indexed = tuple(
                (column, descending, collation) for _, _, column, descending, collation, key in columns if key
            )
            # SQLite numbers the indexes of constraints as they come.
            indexes[name if origin == "c" else indexed] = (unique, origin, partial, indexed, text)
        schema[table] = {
            "columns": connection.execute(f"PRAGMA table_xinfo('{table}')").fetchall(),
            "indexes": indexes,
            "foreign keys": connection.execute(f"PRAGMA foreign_key_list('{table}')").fetchall(),
            "constraints": sorted(re.findall(r"CONSTRAINT \w+ UNIQUE \([^)]*\)", sql)),
            "identity": "AUTOINCREMENT" in sql,
            "without rowid": "WITHOUT ROWID" in sql,
            "collations": re.findall(r"COLLATE \S+", sql),
        }
    return schema


async def opened(path: Path) -> SqlSessionStore:
    return await open_sqlite("main", SqliteSettings(path))


async def use(path: Path) -> list[str]:
    """Open, run a turn, close; what the session holds then."""
    store = await opened(path)
    await (await Actor(store).join()).turn("hello")
    texts = [text for _, text, _ in await history(store)]
    await store.close()
    return texts


# --- tables.py and the migrations


def test_the_migrations_lead_to_the_tables() -> None:
    with closing(connect()) as created, closing(connect()) as upgraded:
        upgrade_sqlite(created)
        migrated(upgraded)
        assert described(upgraded) == described(created)
        assert set(described(created)) == {*metadata.tables, VERSION_TABLE}
        for connection in (created, upgraded):
            assert connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall() == [
                (HECTOR.head,)
            ]


def test_turns_that_the_release_before_wrote_tell_when_they_changed() -> None:
    with closing(connect()) as connection:
        migrated(connection, "0003")
        connection.execute(
            "INSERT INTO turns (agent_id, user_id, id, session_id, state, retryable, attempt, superseded,"
            " input_tokens, output_tokens, created_at)"
            " VALUES ('a', 'u', 't', 's', 'working', 0, 1, 0, 0, 0, '2026-01-01')"
        )
        upgrade_sqlite(connection)
        for column in ("created_at", "started_at", "ended_at"):
            connection.execute(f"UPDATE turns SET {column} = '2026-01-02'")
            assert connection.execute("SELECT changed_at FROM turns").fetchall() == [("2026-01-02",)]
            connection.execute(f"UPDATE turns SET {column} = '2026-01-01'")


def test_alembic_finds_nothing_to_add_to_the_migrations() -> None:
    with closing(connect()) as connection:
        migrated(connection)
        engine = create_engine("sqlite://", creator=lambda: connection, poolclass=pool.StaticPool)
        with engine.connect() as reflecting:
            context = MigrationContext.configure(
                reflecting, opts={"version_table": VERSION_TABLE, "compare_type": True}
            )
            assert compare_metadata(context, metadata) == []


def test_head_is_the_newest_migration() -> None:
    scripts = ScriptDirectory.from_config(alembic_config(HECTOR))
    assert scripts.get_heads() == [HECTOR.head]
    assert len(list(scripts.walk_revisions())) == len(
        list((CHECKOUT / "src/hector/storage/migrations/versions").glob("0*.py"))
    )


def test_replicas_that_serve_while_their_table_gets_a_lock_go_on(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "x.db")) as connection, closing(connect(tmp_path / "x.db")) as older:
        migrated(connection, "0001")
        register, beat, declare_dead = (text.format(id="before") for text in OLD_STATEMENTS)
        for statement in (register, beat):
            older.execute(statement)
        upgrade_sqlite(connection)
        for statement in (beat, declare_dead, OLD_STATEMENTS[0].format(id="after")):
            older.execute(statement)
        rows = connection.execute("SELECT id, counter, lock_name FROM replicas ORDER BY id").fetchall()
        assert rows == [("after", 0, None), ("before", 2, None)]


def test_a_wheel_holds_the_migrations(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    folder = CHECKOUT / "src/hector/storage/migrations"
    shipped = {f"hector/storage/migrations/{path.relative_to(folder)}" for path in folder.rglob("*.py")}
    assert shipped <= names
    assert any(name.startswith(f"hector/storage/migrations/versions/{HECTOR.head}_") for name in names)


# --- starts


async def test_a_missing_file_and_its_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "data" / "of" / "hector" / "sessions.db"
    assert await use(path) == ["hello", "re: hello"]
    assert await use(path) == ["hello", "re: hello"] * 2


async def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = await opened(Path("sessions.db"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    await (await Actor(store).join()).turn()
    assert await store.session(KEY)
    await store.close()
    assert list(elsewhere.iterdir()) == []


async def test_an_empty_file_is_filled(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.touch()
    assert await use(path) == ["hello", "re: hello"]


async def test_a_start_on_an_up_to_date_schema_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    await use(path)
    statements: list[str] = []
    with closing(connect(path)) as connection:
        connection.set_trace_callback(statements.append)
        upgrade_sqlite(connection)
    assert statements
    assert all(statement.startswith("SELECT") for statement in statements), statements


@pytest.mark.parametrize("exists", [False, True])
def test_a_start_does_not_import_alembic(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "sessions.db"
    if exists:
        asyncio.run(use(path))
    program = """
import asyncio, sys
from pathlib import Path
from hector.storage.sqlite import SqliteSettings
from hector.storage.opening import open_sqlite
async def start():
    await (await open_sqlite("main", SqliteSettings(Path(sys.argv[1])))).close()
asyncio.run(start())
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


async def test_an_older_database_is_migrated_in_place(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    assert await use(path) == ["hello", "re: hello"]
    statements: list[str] = []
    with closing(connect(path)) as connection, closing(connect()) as fresh:
        connection.set_trace_callback(statements.append)
        upgrade_sqlite(connection, LATER)
        connection.set_trace_callback(None)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert connection.execute("SELECT COUNT(*) FROM messages").fetchone() == (2,)
        assert connection.execute("SELECT user_id, title FROM sessions").fetchall() == [("u", "u")]
        upgrade_sqlite(fresh, LATER)
        assert described(connection) == described(fresh)
    assert statements.count("BEGIN IMMEDIATE") == statements.count("COMMIT") == 1
    assert statements.index("PRAGMA foreign_keys=OFF") < statements.index("BEGIN IMMEDIATE")


# --- starting afresh


async def test_after_dropping_both_tables_a_start_makes_a_fresh_schema(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    await use(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP TABLE messages; DROP TABLE sessions;")
    assert await use(path) == ["hello", "re: hello"]
    with closing(connect(path)) as connection, closing(connect()) as fresh:
        upgrade_sqlite(fresh)
        assert described(connection) == described(fresh)
        assert connection.execute("SELECT COUNT(*) FROM turns").fetchone() == (1,)


@pytest.mark.parametrize(
    ("table", "left"),
    [
        ("messages", "table 'sessions'"),
        ("sessions", "table 'messages'"),
        ("files", "tables 'messages' and 'sessions'"),
    ],
)
async def test_after_dropping_one_table_nothing_else_is_thrown_away(
    tmp_path: Path, table: str, left: str
) -> None:
    path = tmp_path / "sessions.db"
    await use(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"DROP TABLE {table}")
    with pytest.raises(StoreOpenError, match=f"its table '{table}' is gone; restore") as raised:
        await opened(path)
    assert str(raised.value).endswith(f" or drop the {left} to start afresh")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM turns").fetchone() == (1,)


async def test_after_removing_the_file_a_start_makes_a_fresh_one(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    program = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.migrations.test_sqlite_schema import opened
from tests.contract.actor import Actor
async def die():
    store = await opened(Path(sys.argv[1]))
    await (await Actor(store).join()).turn("lost")
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(die())
"""
    died = subprocess.run([sys.executable, "-c", program, str(path)], cwd=CHECKOUT, check=False)
    assert died.returncode == -signal.SIGKILL
    left = {each.name for each in tmp_path.iterdir()}
    assert {"sessions.db", "sessions.db-wal", "sessions.db-shm"} <= left
    path.unlink()
    assert await use(path) == ["hello", "re: hello"]


# --- interrupted and simultaneous starts

_DIE = """
import os, signal, sys
from pathlib import Path
from hector.storage.migrate import HECTOR, upgrade_sqlite
from hector.storage.sqlite import SqliteSettings, connect
from tests.migrations.history import LATER
connection = connect(SqliteSettings(Path(sys.argv[1])))
left = int(sys.argv[2])
def count(statement):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
connection.set_trace_callback(count)
upgrade_sqlite(connection, {"shipped": HECTOR, "later": LATER}[sys.argv[3]])
"""


def die(path: Path, statement: int, history: str) -> None:
    died = subprocess.run(
        [sys.executable, "-c", _DIE, str(path), str(statement), history], cwd=CHECKOUT, check=False
    )
    assert died.returncode == -signal.SIGKILL


@pytest.mark.parametrize("statement", [1, 4, 7, 8, 9, 20, 27, 28, 29])
async def test_a_kill_in_the_middle_of_creation_is_completed_by_the_next_start(
    tmp_path: Path, statement: int
) -> None:
    path = tmp_path / "sessions.db"
    die(path, statement, "shipped")
    assert await use(path) == ["hello", "re: hello"]
    with closing(connect(path)) as connection, closing(connect()) as fresh:
        upgrade_sqlite(fresh)
        assert described(connection) == described(fresh)


@pytest.mark.parametrize("statement", [5, 12, 13, 19, 28, 38, 39])
async def test_a_kill_in_the_middle_of_a_migration_is_completed_by_the_next_start(
    tmp_path: Path, statement: int
) -> None:
    path = tmp_path / "sessions.db"
    await use(path)
    die(path, statement, "later")
    with closing(connect(path)) as connection, closing(connect()) as fresh:
        assert connection.execute(f"SELECT * FROM {VERSION_TABLE}").fetchall() == [(HECTOR.head,)]
        upgrade_sqlite(connection, LATER)
        upgrade_sqlite(fresh, LATER)
        assert described(connection) == described(fresh)
        assert connection.execute("SELECT COUNT(*) FROM messages").fetchone() == (2,)


_START_ON_DEMAND = """
import asyncio, sys
from pathlib import Path
from tests.migrations.test_sqlite_schema import opened
from hector.domain.ids import SessionKey
async def start(path):
    store = await opened(Path(path))
    assert await store.create(SessionKey("a", "u", sys.argv[1]))
    await store.close()
for line in sys.stdin:
    asyncio.run(start(line.strip()))
    print("started", flush=True)
"""


def test_processes_that_start_at_once_make_the_schema_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _START_ON_DEMAND, str(n)],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(6)
    ]
    try:
        # Without the lock of the folder about every third round fails.
        for round_ in range(20):
            path = tmp_path / str(round_) / "sessions.db"
            for process in processes:
                assert process.stdin
                process.stdin.write(f"{path}\n")
                process.stdin.flush()
            assert [process.stdout and process.stdout.readline() for process in processes] == [
                "started\n"
            ] * 6
            with closing(connect(path)) as connection:
                assert connection.execute("SELECT COUNT(*) FROM sessions").fetchone() == (6,)
                assert connection.execute(f"SELECT * FROM {VERSION_TABLE}").fetchall() == [(HECTOR.head,)]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


# --- what cannot be used


async def _refusal(path: Path) -> str:
    with pytest.raises(StoreOpenError) as refused:
        await opened(path)
    text = str(refused.value)
    start = f"failed to connect to session store 'main': {path}: "
    assert text.startswith(start), text
    return text.removeprefix(start)


async def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    await use(path)
    with closing(connect(path)) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        before = described(connection)
    assert await _refusal(path) == (
        f"its schema is of a newer Hector; this one knows versions up to {HECTOR.head}: upgrade Hector"
    )
    with closing(connect(path)) as connection:
        assert described(connection) == before


@pytest.mark.parametrize(
    ("tables", "name"),
    [
        (SPEC_TABLES, "messages"),
        ("CREATE TABLE sessions (x)", "sessions"),
        ("CREATE TABLE files (x)", "files"),
        ("CREATE TABLE alembic_version (version_num); CREATE TABLE turns (x)", "turns"),
    ],
)
async def test_another_programs_database_is_refused_and_left_alone(
    tmp_path: Path, tables: str, name: str
) -> None:
    path = tmp_path / "sessions.db"
    with closing(connect(path)) as connection:
        connection.executescript(tables)
        before = described(connection)
    assert (
        await _refusal(path)
        == f"its table {name!r} was not made by Hector; give Hector a database of its own"
    )
    with closing(connect(path)) as connection:
        assert described(connection) == before


async def test_another_programs_tables_of_other_names_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with closing(connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('theirs');"
            "CREATE TABLE notes (x)"
        )
    await use(path)
    with closing(connect(path)) as connection:
        connection.executescript("DROP TABLE messages; DROP TABLE sessions;")
    await use(path)
    with closing(connect(path)) as connection:
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [("theirs",)]
        assert connection.execute("SELECT COUNT(*) FROM notes").fetchone() == (0,)


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.write_text("dear diary" * 1000)
    assert (
        await _refusal(path)
        == "the session store failed: file is not a database; name another file, or restore a backup"
    )
    assert path.read_text() == "dear diary" * 1000


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert await _refusal(tmp_path) == "is a directory; name a file in it"


async def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    assert (await _refusal(tmp_path / "data" / "sessions.db")).startswith("its folder cannot be used: ")


_NOBODY = 65534


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
@pytest.mark.parametrize(
    ("exists", "folder", "file", "expected"),
    [
        (False, 0o555, 0, "its folder is not writable for this user"),
        (True, 0o555, 0o666, "its folder is not writable for this user"),
        (True, 0o777, 0o444, "the file is not writable for this user"),
        (True, 0o777, 0o000, "the file is not writable for this user"),
        (False, 0o000, 0, "its folder is not writable for this user"),
    ],
)
def test_what_may_not_be_written_is_refused(exists: bool, folder: int, file: int, expected: str) -> None:
    program = """
import asyncio, os, sys
from pathlib import Path
from hector.domain.errors import StoreOpenError
from hector.storage.sqlite import SqliteSettings
from hector.storage.opening import open_sqlite
os.setuid(int(sys.argv[1]))
try:
    asyncio.run(open_sqlite("main", SqliteSettings(Path(sys.argv[2]))))
except StoreOpenError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        data = Path(root) / "data"
        data.mkdir()
        path = data / "sessions.db"
        if exists:
            asyncio.run(use(path))
            path.chmod(file)
        data.chmod(folder)
        ran = subprocess.run(
            [sys.executable, "-c", program, str(_NOBODY), str(path)],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.stdout == f"failed to connect to session store 'main': {path}: {expected}\n", ran.stderr


def test_a_failed_creation_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(connect()) as connection:
        connection.set_authorizer(
            lambda action, name, *_: (
                sqlite3.SQLITE_DENY
                if action == sqlite3.SQLITE_CREATE_TABLE and name == "turns"
                else sqlite3.SQLITE_OK
            )
        )
        with pytest.raises(sqlite3.DatabaseError):
            upgrade_sqlite(connection)
        connection.set_authorizer(None)
        assert described(connection) == {}
        upgrade_sqlite(connection)
