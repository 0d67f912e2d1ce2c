"""Which schema of a PostgreSQL database Hector takes."""

import pytest

from hector.domain.errors import StorageError, StoreOpenError
from hector.storage.migrate import HECTOR, VERSION_TABLE
from hector.storage.postgres.schema import Place, Surroundings, choose_schema
from tests.migrations.starts import start
from tests.servers import Database, PostgresServer

OURS = {VERSION_TABLE: frozenset({"SELECT"})}
NEITHER = "its user 'hector' may create neither tables in a schema of database 'db' nor a schema of its own"
THEIRS = {"sessions": frozenset({"SELECT"})}


def place(name: str, *, creates: bool = False, ours: bool = False, theirs: bool = False) -> Place:
    return Place(name, may_use=True, may_create=creates, tables=OURS if ours else THEIRS if theirs else {})


def found(*places: Place, path: tuple[str, ...] = ("public",), creates: bool = False) -> Surroundings:
    return Surroundings("hector", "db", "UTF8", creates, path, {each.name: each for each in places})


@pytest.mark.parametrize(
    ("surroundings", "wanted", "expected"),
    [
        pytest.param(found(place("public", creates=True)), None, "public", id="public of old servers"),
        pytest.param(found(place("public"), creates=True), None, "hector", id="public of servers since 15"),
        pytest.param(
            found(place("hector", creates=True), place("public", creates=True), path=("hector", "public")),
            None,
            "hector",
            id="a schema named after the role comes before public",
        ),
        pytest.param(
            found(place("hector", creates=True), place("public", ours=True), path=("hector", "public")),
            None,
            "public",
            id="where the tables are",
        ),
        pytest.param(
            found(place("hector", ours=True), place("public", ours=True), path=("hector", "public")),
            None,
            "hector",
            id="where psql finds them, if there are two",
        ),
        pytest.param(
            found(place("app", creates=True), place("public", creates=True), path=("app",)),
            None,
            "app",
            id="a path of the role's own",
        ),
        pytest.param(
            found(place("app"), place("public", ours=True), path=("app",), creates=True),
            None,
            "public",
            id="the tables are found beside the path, too",
        ),
        pytest.param(
            found(place("public", creates=True, theirs=True), creates=True),
            None,
            "public",
            id="another program's tables are no reason to go elsewhere",
        ),
        pytest.param(
            found(place("public", ours=True), creates=True), "mine", "mine", id="a wanted one is made"
        ),
        pytest.param(found(place("mine", ours=True)), "mine", "mine", id="a wanted one is found"),
        pytest.param(found(place("mine", creates=True)), "mine", "mine", id="a wanted one is filled"),
    ],
)
def test_the_schema_is(surroundings: Surroundings, wanted: str | None, expected: str) -> None:
    assert choose_schema(surroundings, wanted) == expected


@pytest.mark.parametrize(
    ("surroundings", "wanted", "problem", "remedy"),
    [
        (
            found(place("public")),
            None,
            NEITHER,
            'GRANT CREATE ON DATABASE "db" TO "hector"',
        ),
        (
            found(place("public"), place("hector"), path=("hector", "public"), creates=True),
            None,
            NEITHER,
            'GRANT USAGE, CREATE ON SCHEMA "hector" TO "hector"',
        ),
        (
            found(place("mine"), creates=True),
            "mine",
            "its user 'hector' may not create tables in schema 'mine' of database 'db'",
            'GRANT USAGE, CREATE ON SCHEMA "mine" TO "hector"',
        ),
        (
            found(),
            'the "one"',
            "database 'db' has no schema 'the \"one\"', and its user 'hector' may not create one",
            'CREATE SCHEMA "the ""one""" AUTHORIZATION "hector"',
        ),
    ],
)
def test_where_there_is_none_the_missing_privilege_is_named(
    surroundings: Surroundings, wanted: str | None, problem: str, remedy: str
) -> None:
    with pytest.raises(StorageError) as raised:
        choose_schema(surroundings, wanted)
    assert str(raised.value) == f"{problem}; let an administrator run there: {remedy};"


# --- on a server


async def schemas_with_tables(db: Database) -> list[str]:
    rows = await db.run(f"SELECT schemaname FROM pg_tables WHERE tablename = '{VERSION_TABLE}'", admin=True)
    return sorted(schema for (schema,) in rows)


async def test_the_guides_own_setup_gives_a_schema_named_after_the_role(postgres_db: Database) -> None:
    """On PostgreSQL 15 it gives no right to create in `public`."""
    assert await start(postgres_db) == postgres_db.user
    assert await schemas_with_tables(postgres_db) == [postgres_db.user]
    assert await postgres_db.run("SELECT id, agent_id, created_at FROM sessions") == []
    assert await start(postgres_db) == postgres_db.user


async def test_the_owner_of_the_database_has_them_in_public(postgres_server: PostgresServer) -> None:
    db = await postgres_server.create_database(owner=True)
    assert await start(db) == "public"
    assert await schemas_with_tables(db) == ["public"]
    assert await start(db) == "public"
    await postgres_server.drop_database(db)


@pytest.mark.parametrize("name", ["conversations", 'Ünder "score"'])
async def test_a_wanted_schema_is_made_and_found(postgres_db: Database, name: str) -> None:
    assert await start(postgres_db, HECTOR, schema=name) == name
    assert await schemas_with_tables(postgres_db) == [name]
    assert await start(postgres_db, HECTOR, schema=name) == name


async def test_stores_in_two_schemas_of_a_database_know_nothing_of_each_other(postgres_db: Database) -> None:
    await start(postgres_db, HECTOR, schema="one")
    await start(postgres_db, HECTOR, schema="two")
    await postgres_db.run("DROP TABLE one.messages", "DROP TABLE one.sessions")
    await start(postgres_db, HECTOR, schema="one")
    assert await schemas_with_tables(postgres_db) == ["one", "two"]
    await postgres_db.run("UPDATE two.hector_version SET version_num = '9999'")
    await start(postgres_db, HECTOR, schema="one")


async def test_a_path_of_the_roles_own_is_kept_to(postgres_db: Database) -> None:
    await postgres_db.run(
        f"CREATE SCHEMA app AUTHORIZATION {postgres_db.user}",
        f"ALTER ROLE {postgres_db.user} SET search_path = app, public",
        admin=True,
    )
    assert await start(postgres_db) == "app"
    assert await postgres_db.run("SELECT * FROM sessions") == []


async def test_a_role_that_may_create_nothing_is_told_what_to_ask_for(
    postgres_db: Database, postgres_server: PostgresServer
) -> None:
    least = await postgres_server.add_user(postgres_db)
    with pytest.raises(StoreOpenError, match="may create neither tables") as refused:
        await start(least)
    remedy = str(refused.value).split("let an administrator run there: ")[1]
    assert remedy == f'GRANT CREATE ON DATABASE "{least.database}" TO "{least.user}";'
    await postgres_db.run(remedy, admin=True)
    assert await start(least) == least.user
