"""What a role must be allowed that serves with the schema in place, and what it is told otherwise."""

import pytest

from hector.cli.db import migrate_stores, show_grants
from hector.config.model import Config
from hector.domain.errors import StoreOpenError
from hector.storage.grants import grants
from hector.storage.migrate import HECTOR, VERSION_TABLE, Found
from hector.storage.mysql.migrate import check_privileges as check_on_mysql
from hector.storage.postgres.migrate import check_privileges as check_on_postgres
from tests.migrations.history import LATER
from tests.migrations.starts import connected_to_mysql, connected_to_postgres, described, fill, start
from tests.servers import Database, DatabaseServer

TABLES = sorted(HECTOR.metadata.tables)


@pytest.fixture
async def least(server_db: Database, database_server: DatabaseServer) -> Database:
    """A user without any privilege, of a database whose schema is in place."""
    await start(server_db)
    await fill(server_db)
    return await database_server.add_user(server_db)


def at(db: Database, table: str) -> str:
    return f'"{db.user}".{table}' if db.driver == "postgres" else f"`{db.database}`.{table}"


def role(db: Database) -> str:
    return db.user if db.driver == "postgres" else f"{db.user}@'%'"


async def start_as(least: Database, owner: Database) -> None:
    await start(least, HECTOR, schema=owner.user if owner.driver == "postgres" else None)


async def refusal(least: Database, owner: Database) -> str:
    with pytest.raises(StoreOpenError) as refused:
        await start_as(least, owner)
    assert not refused.value.retryable
    text = str(refused.value).removeprefix("failed to connect to session store 'main': ")
    who = least.user if least.driver == "postgres" else f"{least.user}@%"
    beginning, end = (
        f"its user '{who}' lacks ",
        f"; `hector db grants {who}` prints the statements that give it",
    )
    assert text.startswith(beginning), text
    lacks, _, rest = text.removeprefix(beginning).partition(end)
    assert rest == " all that it needs"
    return lacks


def statements(least: Database, owner: Database) -> list[str]:
    return grants(least.driver, least.user, database=owner.database, schema=owner.user)


# --- the statements


def test_on_postgres_the_statements_name_all_that_is_needed() -> None:
    tables = ", ".join(f'"s 1"."{table}"' for table in TABLES)
    assert grants("postgres", 'o"dd', database="db", schema="s 1") == [
        'GRANT CONNECT ON DATABASE "db" TO "o""dd";',
        'GRANT USAGE ON SCHEMA "s 1" TO "o""dd";',
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO "o""dd";',
        'GRANT SELECT ON "s 1"."hector_version" TO "o""dd";',
    ]


def test_on_mysql_the_statements_name_all_that_is_needed() -> None:
    assert grants("mysql", "o'dd", database="d`b", host="10.0.%") == [
        *(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON `d``b`.`{table}` TO 'o''dd'@'10.0.%';"
            for table in TABLES
        ),
        "GRANT SELECT ON `d``b`.`hector_version` TO 'o''dd'@'10.0.%';",
    ]


# --- roles


async def test_the_printed_statements_are_enough_to_serve(least: Database, server_db: Database) -> None:
    await server_db.run(*statements(least, server_db), admin=True)
    before = await described(server_db)
    await start_as(least, server_db)
    assert await described(server_db) == before
    for table in ("messages", *TABLES):
        name, column = at(server_db, table), HECTOR.metadata.tables[table].columns[0].name
        await least.run(
            f"SELECT * FROM {name}", f"UPDATE {name} SET {column} = {column}", f"DELETE FROM {name}"
        )
    await least.run(
        f"INSERT INTO {at(server_db, 'tombstones')} (agent_id, user_id, session_id, incarnation, created_at)"
        " VALUES ('a', 'u', 's', 'i', '2026-01-01')"
    )


async def test_and_for_nothing_else(least: Database, server_db: Database) -> None:
    await server_db.run(*statements(least, server_db), admin=True)
    for statement in (
        f"CREATE TABLE {at(server_db, 'more')} (x INTEGER)",
        f"ALTER TABLE {at(server_db, 'turns')} ADD COLUMN x INTEGER",
        f"DROP TABLE {at(server_db, 'turns')}",
        f"UPDATE {at(server_db, VERSION_TABLE)} SET version_num = '9999'",
    ):
        with pytest.raises(Exception, match=r"permission denied|must be owner|command denied"):
            await least.run(statement)


async def test_only_the_two_grants_of_the_guide_are_too_few(least: Database, server_db: Database) -> None:
    await server_db.run(
        *(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {at(server_db, table)} TO {role(least)}"
            for table in ("sessions", "messages")
        ),
        admin=True,
    )
    rest = ", ".join(table for table in TABLES if table not in ("sessions", "messages"))
    usage = f"USAGE on schema {server_db.user}; " if server_db.driver == "postgres" else ""
    assert await refusal(least, server_db) == (
        f"{usage}SELECT, INSERT, UPDATE, DELETE on {rest}; SELECT on hector_version"
    )


@pytest.mark.parametrize(
    ("privilege", "table"),
    [
        ("SELECT", "sessions"),
        ("INSERT", "messages"),
        ("UPDATE", "turns"),
        ("DELETE", "files"),
        ("SELECT", VERSION_TABLE),
    ],
)
async def test_one_privilege_that_is_missing_is_named(
    least: Database, server_db: Database, privilege: str, table: str
) -> None:
    await server_db.run(
        *statements(least, server_db),
        f"REVOKE {privilege} ON {at(server_db, table)} FROM {role(least)}",
        admin=True,
    )
    assert await refusal(least, server_db) == f"{privilege} on {table}"


async def test_a_schema_that_a_role_may_not_use_is_named(
    postgres_db: Database, postgres_server: DatabaseServer
) -> None:
    await start(postgres_db)
    least = await postgres_server.add_user(postgres_db)
    _, usage, *others = statements(least, postgres_db)
    await postgres_db.run(*others, admin=True)
    assert await refusal(least, postgres_db) == f"USAGE on schema {postgres_db.user}"
    await postgres_db.run(usage, admin=True)
    await start_as(least, postgres_db)


async def test_a_role_that_may_not_migrate_is_told_so_and_its_database_left_alone(
    least: Database, server_db: Database
) -> None:
    await server_db.run(*statements(least, server_db), admin=True)
    schema = server_db.user if server_db.driver == "postgres" else None
    before = await described(server_db)
    with pytest.raises(StoreOpenError, match=r"may not change the schema \(.*\); let .* `hector db migrate`"):
        await start(least, LATER, schema=schema)
    assert await described(server_db) == before
    await start(server_db, LATER)
    with pytest.raises(StoreOpenError, match="lacks SELECT, INSERT, UPDATE, DELETE on notes; "):
        await start(least, LATER, schema=schema)


async def test_a_role_that_need_not_create_the_tables_is_not_told_to_ask_for_that(
    postgres_db: Database, postgres_server: DatabaseServer
) -> None:
    least = await postgres_server.add_user(postgres_db)
    with pytest.raises(
        StoreOpenError, match="its schema is not there, and auto_migrate is off: let `hector db"
    ):
        await start(least, HECTOR, auto_migrate=False)


async def test_a_look_changes_nothing(server_db: Database, database_server: DatabaseServer) -> None:
    assert await look(server_db) == Found(frozenset(), None)
    assert await described(server_db) == {}
    await start(server_db)
    assert await look(server_db) == Found(HECTOR.names, HECTOR.head)
    await server_db.run("DROP TABLE messages", f"UPDATE {VERSION_TABLE} SET version_num = 'x'")
    assert await look(server_db) == Found(HECTOR.names - {"messages"}, "x")
    with pytest.raises(StoreOpenError):
        await look(await database_server.add_user(server_db))


async def look(db: Database) -> Found:
    if db.driver == "postgres":
        async with connected_to_postgres(db) as connection:
            schema, found = await check_on_postgres(connection, db.settings())
            assert schema == db.user
            return found
    async with connected_to_mysql(db) as connection:
        return await check_on_mysql(connection, db.settings())


# --- the commands


def configured(db: Database, **more: object) -> Config:
    store = {"backend": "sql", "sql": db.section(**more), "auto_migrate": False}
    return Config.model_validate({"agents": {"a": {"llm": "local"}}, "session_stores": {"main": store}})


async def test_an_administrator_migrates_and_grants_and_the_role_serves(
    server_db: Database, database_server: DatabaseServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await migrate_stores(configured(server_db), store=None) == 0
    assert capsys.readouterr().out == f"session store 'main': schema {HECTOR.head} (made)\n"
    least = await database_server.add_user(server_db)
    assert await show_grants(configured(server_db), least.user, store=None, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    if server_db.driver == "postgres":
        note = f"-- whoever serves as {least.user!r} finds the tables with the key `schema: {server_db.user}`"
        assert lines.pop(0) == note
    assert lines == statements(least, server_db)
    await server_db.run(*lines, admin=True)
    await start_as(least, server_db)


# --- MySQL, where the catalog tells a user only of what it may touch


@pytest.mark.parametrize("where", ["*.*", "{database}.*", "`{escaped}`.*", r"`sessions\_%`.*"])
async def test_grants_for_more_than_a_table_count(
    mysql_db: Database, mysql_server: DatabaseServer, where: str
) -> None:
    await start(mysql_db)
    least = await mysql_server.add_user(mysql_db)
    on = where.format(database=mysql_db.database, escaped=mysql_db.database.replace("_", r"\_"))
    await mysql_db.run(
        # Of several grants for databases that match, the most exact counts, and no other.
        f"REVOKE SHOW VIEW ON {mysql_db.database}.* FROM {role(least)}",
        f"GRANT SELECT, INSERT, DELETE ON {on} TO {role(least)}",
        admin=True,
    )
    assert await refusal(least, mysql_db) == f"UPDATE on {', '.join(TABLES)}"
    await mysql_db.run(f"GRANT UPDATE ON {on} TO {role(least)}", admin=True)
    await start(least)


async def test_grants_for_another_database_do_not_count(
    mysql_db: Database, mysql_server: DatabaseServer
) -> None:
    await start(mysql_db)
    least = await mysql_server.add_user(mysql_db)
    await mysql_db.run(
        f"GRANT ALL PRIVILEGES ON {mysql_db.database}_2.* TO {role(least)}",
        f"GRANT SELECT ON {mysql_db.database}.hector_version TO {role(least)}",
        admin=True,
    )
    assert await refusal(least, mysql_db) == f"SELECT, INSERT, UPDATE, DELETE on {', '.join(TABLES)}"


async def test_grants_to_a_role_that_a_user_has_count(
    mysql_db: Database, mysql_server: DatabaseServer
) -> None:
    await start(mysql_db)
    least = await mysql_server.add_user(mysql_db)
    served_by = f"{mysql_db.database}_servers"
    on = f"{mysql_db.database}.*"
    await mysql_db.run(
        f"CREATE ROLE {served_by}",
        f"GRANT SELECT, INSERT, DELETE ON {on} TO {served_by}",
        f"GRANT {served_by} TO {role(least)}",
        f"SET DEFAULT ROLE {served_by} FOR {role(least)}",
        admin=True,
    )
    assert await refusal(least, mysql_db) == f"UPDATE on {', '.join(TABLES)}"
    await mysql_db.run(f"GRANT UPDATE ON {on} TO {served_by}", admin=True)
    await start(least)
    await mysql_db.run(f"DROP ROLE {served_by}", admin=True)


async def test_a_hidden_table_is_not_taken_for_one_that_was_dropped(
    mysql_db: Database, mysql_server: DatabaseServer
) -> None:
    """Or the rest, which is not hidden, would be dropped to start afresh."""
    await start(mysql_db)
    await fill(mysql_db)
    least = await mysql_server.add_user(mysql_db)
    await mysql_db.run(
        f"REVOKE SHOW VIEW ON {mysql_db.database}.* FROM {role(least)}",
        *(
            f"GRANT ALL PRIVILEGES ON {at(mysql_db, table)} TO {role(least)}"
            for table in HECTOR.names - {"sessions", "messages"}
        ),
        admin=True,
    )
    assert await refusal(least, mysql_db) == "SELECT, INSERT, UPDATE, DELETE on messages, sessions"
    await mysql_db.run(f"UPDATE {VERSION_TABLE} SET version_num = 'older'")
    assert await refusal(least, mysql_db) == "SELECT on messages, sessions"
    assert await mysql_db.run("SELECT COUNT(*) FROM turns") == [(1,)]
