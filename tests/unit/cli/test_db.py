"""`hector db`, as far as it needs no database server; with one: tests/migrations/test_privileges.py."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hector.cli.config_file import load_config
from hector.cli.db import migrate_stores, show_grants
from hector.config.model import Config
from hector.domain.errors import InvalidError, StoreOpenError
from hector.storage.grants import grants
from hector.storage.migrate import HECTOR

POSTGRES = "pg: {backend: sql, sql: {driver: postgres, database: db, user: hector, host: 127.0.0.1, port: 1}}"
IN_SCHEMA = "in_schema: {backend: sql, sql: {driver: postgres, database: db, user: hector, schema: talks}}"
MYSQL = "my: {backend: sql, sql: {driver: mysql, database: db, user: hector, host: 127.0.0.1, port: 1}}"
MEMORY = "memory: {backend: memory}"


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"file: {{backend: sql, sql: {{driver: sqlite, database: '{tmp_path}/data/x.db'}}}}"


def configured(folder: Path, *stores: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(f"agents: {{a: {{llm: local}}}}\nsession_stores: {{{', '.join(stores)}}}\n")
    return load_config(path)


async def printed(
    config: Config, role: str, capsys: pytest.CaptureFixture[str], store: str | None = None
) -> list[str]:
    assert await show_grants(config, role, store=store, as_json=False) == 0
    return capsys.readouterr().out.splitlines()


async def test_the_statements_of_a_configured_schema_are_printed_without_asking_its_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = await printed(configured(tmp_path, IN_SCHEMA), "app", capsys)
    assert lines == grants("postgres", "app", database="db", schema="talks")


async def test_where_the_server_is_not_reached_a_comment_says_that_the_schema_is_a_guess(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note, *lines = await printed(configured(tmp_path, POSTGRES, MEMORY), "app", capsys)
    assert note.startswith("-- schema 'public' is a guess: failed to connect to session store 'pg': ")
    assert lines == grants("postgres", "app", database="db", schema="public")


@pytest.mark.parametrize(
    ("role", "user", "host"),
    [("app", "app", "%"), ("app@10.0.%", "app", "10.0.%"), ("a@b@localhost", "a@b", "localhost")],
)
async def test_on_mysql_a_role_has_a_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], role: str, user: str, host: str
) -> None:
    lines = await printed(configured(tmp_path, MYSQL), role, capsys)
    assert lines == grants("mysql", user, database="db", host=host)


async def test_a_program_is_given_an_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(tmp_path, IN_SCHEMA, MYSQL)
    assert await show_grants(config, "app", store="in_schema", as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {
        "store": "in_schema",
        "driver": "postgres",
        "schema": "talks",
        "notes": [],
        "statements": grants("postgres", "app", database="db", schema="talks"),
    }
    assert await show_grants(config, "app", store="my", as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["schema"] is None


@pytest.mark.parametrize(
    ("stores", "store", "expected"),
    [
        ([MYSQL, POSTGRES], None, "--store: say which session store is meant (known: my, pg)"),
        ([MYSQL, POSTGRES], "pgg", "--store: no session store named 'pgg' (did you mean 'pg'?)"),
        ([MYSQL, POSTGRES], "other", "--store: no session store named 'other' (known: my, pg)"),
        ([MEMORY], None, "--store: the configuration has no session store in a database"),
        ([MEMORY], "memory", "--store: session store 'memory' is on no server that knows roles"),
    ],
)
async def test_a_store_without_roles_or_none_is_refused(
    tmp_path: Path, stores: list[str], store: str | None, expected: str
) -> None:
    with pytest.raises(InvalidError) as refused:
        await show_grants(configured(tmp_path, *stores), "app", store=store, as_json=False)
    assert str(refused.value) == expected


@pytest.mark.parametrize("role", ["", "a\0b"])
async def test_what_is_no_name_is_refused(tmp_path: Path, role: str) -> None:
    with pytest.raises(InvalidError, match="ROLE"):
        await show_grants(configured(tmp_path, MYSQL), role, store=None, as_json=False)


async def test_all_stores_in_sql_are_migrated(
    tmp_path: Path, sqlite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await migrate_stores(configured(tmp_path, MEMORY, sqlite), store=None) == 0
    assert capsys.readouterr().out == f"session store 'file': schema {HECTOR.head} (made)\n"
    assert (tmp_path / "data" / "x.db").stat().st_size > 0


async def test_only_the_named_store_is_migrated(
    tmp_path: Path, sqlite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await migrate_stores(configured(tmp_path, POSTGRES, sqlite), store="file") == 0
    assert capsys.readouterr().out == f"session store 'file': schema {HECTOR.head} (made)\n"


async def test_what_was_done_is_told(tmp_path: Path, sqlite: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(tmp_path, sqlite)
    told = f"session store 'file': schema {HECTOR.head} "
    for expected in ("made", "was up to date"):
        await migrate_stores(config, store=None)
        assert capsys.readouterr().out == f"{told}({expected})\n"
    with closing(sqlite3.connect(tmp_path / "data" / "x.db")) as database:
        database.execute("UPDATE hector_version SET version_num = '0001'")
        database.commit()
    await migrate_stores(config, store=None)
    assert capsys.readouterr().out == f"{told}(upgraded from 0001)\n"


async def test_a_store_that_cannot_be_reached_ends_the_command(tmp_path: Path) -> None:
    at_once = POSTGRES.replace("{backend: sql,", "{backend: sql, connect_retry: 0,")
    with pytest.raises(StoreOpenError, match="failed to connect to session store 'pg': "):
        await migrate_stores(configured(tmp_path, at_once), store=None)


async def test_what_is_in_memory_has_nothing_to_migrate(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="'memory' is in memory"):
        await migrate_stores(configured(tmp_path, MEMORY), store="memory")
