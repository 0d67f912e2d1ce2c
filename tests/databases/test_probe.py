"""`config check --connect` on real servers: what it tells, and that it changes nothing."""

import pytest

from hector.domain.errors import StoreOpenError
from hector.storage.migrate import HECTOR
from hector.storage.opening import open_server
from hector.storage.probing import probe_server
from hector.storage.settings import Tls
from tests.servers import Database, MariaDbServer, PgBouncer, PostgresServer

_TABLES = "SELECT count(*) FROM information_schema.tables WHERE table_name IN ('sessions', 'hector_version')"


async def _tables(db: Database) -> int:
    ((count,),) = await db.run(_TABLES)
    return int(count)


async def test_an_empty_database_is_looked_at_and_left_empty(server_db: Database) -> None:
    found = await probe_server(server_db.driver, server_db.settings(tls=Tls("disable")))
    assert found.schema is None
    assert "its tables are not there yet; a start makes them" in found.warnings
    assert "without TLS" in found.server
    assert await _tables(server_db) == 0


async def test_a_database_that_has_been_served_is_of_this_version(server_db: Database) -> None:
    settings = server_db.settings(tls=Tls("verify-full", root_cert=server_db.tls.ca), host="localhost")
    await (await open_server(server_db.driver, settings)).close()
    found = await probe_server(server_db.driver, settings)
    assert found.schema == HECTOR.head
    assert "TLSv1.3" in found.server
    assert found.server.startswith({"postgres": "PostgreSQL 15", "mysql": "MariaDB 10.11"}[server_db.driver])


async def test_a_server_that_may_lose_commits_is_told(server_db: Database) -> None:
    """Those for tests are quick rather than durable."""
    found = await probe_server(server_db.driver, server_db.settings())
    assert [warning for warning in found.warnings if "a power cut may" in warning]


async def test_without_auto_migrate_missing_tables_are_a_failure(server_db: Database) -> None:
    with pytest.raises(StoreOpenError, match="its schema is not there, and auto_migrate is off"):
        await probe_server(server_db.driver, server_db.settings(auto_migrate=False))


async def test_a_pooler_is_seen(pgbouncer: PgBouncer, postgres_db: Database) -> None:
    found = await probe_server("postgres", pgbouncer.before(postgres_db).settings())
    assert "through a pooler" in found.server


async def test_what_a_start_would_fail_with_is_told(server_db: Database) -> None:
    with pytest.raises(StoreOpenError, match="failed to connect to session store 'main': ") as raised:
        await probe_server(server_db.driver, server_db.settings(password="wrong-and-secret"))
    assert "wrong-and-secret" not in str(raised.value)


async def test_more_connections_than_the_server_takes_are_told(postgres_server: PostgresServer) -> None:
    db = await postgres_server.create_database()
    found = await probe_server("postgres", db.settings(max_conns=4999))
    assert [warning for warning in found.warnings if "max_conns is 5000" in warning]
    await postgres_server.drop_database(db)


async def test_a_user_who_may_not_make_the_tables_is_told_the_grant_that_lets_him(
    mysql_server: MariaDbServer, mysql_db: Database
) -> None:
    app = await mysql_server.add_user(mysql_db)
    account = f"'{app.user}'@'%'"
    await mysql_db.run(
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{app.database}`.* TO {account};", admin=True
    )
    with pytest.raises(
        StoreOpenError, match=r"its tables are to be made, .* lacks CREATE, INDEX on"
    ) as raised:
        await probe_server("mysql", app.settings())
    statement = str(raised.value).partition("GRANT ")[2]
    await mysql_db.run(f"GRANT {statement}", admin=True)
    assert (await probe_server("mysql", app.settings())).schema is None
    await (await open_server("mysql", app.settings())).close()


async def test_a_user_is_not_asked_for_what_this_start_does_not_need(
    mysql_server: MariaDbServer, mysql_db: Database
) -> None:
    app = await mysql_server.add_user(mysql_db)
    on = f"ON `{app.database}`.* TO '{app.user}'@'%'"
    await mysql_db.run(f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, INDEX {on}", admin=True)
    await probe_server("mysql", app.settings())
    await (await open_server("mysql", app.settings())).close()
    # An update is to come.
    await mysql_db.run("UPDATE hector_version SET version_num = '0001'")
    with pytest.raises(StoreOpenError, match=r"its tables are to be changed, .* lacks ALTER on"):
        await probe_server("mysql", app.settings())
    # No privilege would help with this.
    await mysql_db.run("UPDATE hector_version SET version_num = '9999'")
    with pytest.raises(StoreOpenError, match="its schema is of a newer Hector"):
        await probe_server("mysql", app.settings())


async def test_what_everybody_or_a_role_may_do_is_not_taken_for_missing(
    mysql_server: MariaDbServer, mysql_db: Database
) -> None:
    app = await mysql_server.add_user(mysql_db)
    every = f"ALL PRIVILEGES ON `{app.database}`.*"
    role = f"role_{app.database}"
    for grant, revoke in (
        ([f"GRANT {every} TO PUBLIC"], f"REVOKE {every} FROM PUBLIC"),
        (
            [
                f"CREATE ROLE {role}",
                f"GRANT {every} TO {role}",
                f"GRANT {role} TO '{app.user}'@'%'",
                f"SET DEFAULT ROLE {role} FOR '{app.user}'@'%'",
            ],
            f"DROP ROLE {role}",
        ),
    ):
        await mysql_db.run(*grant, admin=True)
        try:
            assert (await probe_server("mysql", app.settings())).schema is None
        finally:
            await mysql_db.run(revoke, admin=True)


async def test_the_grant_that_a_start_names_is_the_whole_statement(
    mysql_server: MariaDbServer, mysql_db: Database
) -> None:
    app = await mysql_server.add_user(mysql_db)
    on = f"ON `{app.database}`.* TO '{app.user}'@'%'"
    await mysql_db.run(f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE {on}", admin=True)
    with pytest.raises(StoreOpenError, match=r"may not change the schema \(INDEX command denied") as raised:
        await open_server("mysql", app.settings())
    await mysql_db.run(f"GRANT {str(raised.value).partition('GRANT ')[2]}", admin=True)
    await (await open_server("mysql", app.settings())).close()


async def test_a_foreign_table_is_told_alike_by_a_look_and_by_a_start(mysql_db: Database) -> None:
    await mysql_db.run("CREATE TABLE messages (a INTEGER)")
    with pytest.raises(StoreOpenError, match="its table 'messages' was not made by Hector") as looked:
        await probe_server("mysql", mysql_db.settings())
    with pytest.raises(StoreOpenError) as started:
        await open_server("mysql", mysql_db.settings())
    assert str(looked.value) == str(started.value)


async def test_no_password_is_told_before_anything_else(postgres_db: Database) -> None:
    failed = "failed to connect to session store 'main': "
    user = f'"{postgres_db.user}"'
    both = (
        f" or let an administrator run: ALTER USER {user} PASSWORD '...';"
        f" or, if there is no such user: CREATE USER {user} PASSWORD '...';"
    )
    with pytest.raises(StoreOpenError) as without:
        await probe_server("postgres", postgres_db.settings(password=""))
    assert str(without.value).startswith(f"{failed}no password is set (an empty one counts as none), and ")
    with pytest.raises(StoreOpenError) as wrong:
        await probe_server("postgres", postgres_db.settings(password="wrong"))
    assert str(wrong.value).startswith(f"{failed}user {postgres_db.user!r} is unknown at ")
    assert str(without.value).endswith(both)
    assert str(wrong.value).endswith(both)
