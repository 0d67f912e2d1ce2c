"""Which PostgreSQL schema holds Hector's tables."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hector.domain.errors import StorageError
from hector.storage.grants import PRIVILEGES, quoted
from hector.storage.migrate import VERSION_TABLE


class Fetching(Protocol):
    """What is asked of an asyncpg connection here."""

    async def fetch(self, query: str, *arguments: Any) -> Sequence[Sequence[Any]]: ...


@dataclass(frozen=True, slots=True)
class Place:
    """A schema, as a role sees it."""

    name: str
    may_use: bool
    may_create: bool
    """Tables in it."""
    tables: Mapping[str, frozenset[str]]
    """Those with a name of ours, and what the role may do with each."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a role finds in its database."""

    role: str
    database: str
    encoding: str
    may_create: bool
    """Schemas in the database."""
    path: Sequence[str]
    """Where tables are looked for that are named without a schema; by default '"$user", public'."""
    places: Mapping[str, Place]


def held_in(found: Surroundings, wanted: str | None) -> str | None:
    """The name of the schema that holds the tables; where psql finds them, if there are several."""
    for name in [wanted] if wanted else [*found.path, found.role, "public"]:
        if name in found.places and VERSION_TABLE in found.places[name].tables:
            return name
    return None


def choose_schema(found: Surroundings, wanted: str | None) -> str:
    """The name of the schema that holds the tables, or shall: it may not exist yet.

    If none holds them and none is wanted, it is the one in which `CREATE TABLE` puts a table that is named
    without a schema, else one named after the role, which comes first when psql looks for tables.
    Raises `StorageError` if there is none, and none can be made.
    """
    if held := held_in(found, wanted):
        return held
    for name in [wanted] if wanted else [*found.path, found.role]:
        if name in found.places and found.places[name].may_create:
            return name
    made = wanted or found.role
    if made not in found.places and found.may_create:
        return made
    raise StorageError(_nowhere(found, wanted))


def _nowhere(found: Surroundings, wanted: str | None) -> str:
    user, database = f"its user {found.role!r}", f"database {found.database!r}"
    role = quoted(found.role)
    if wanted is None:
        problem = f"{user} may create neither tables in a schema of {database} nor a schema of its own"
        # A schema that bears its name may be another's.
        own = found.role in found.places
        what = f"USAGE, CREATE ON SCHEMA {role}" if own else f"CREATE ON DATABASE {quoted(found.database)}"
        remedy = f"GRANT {what} TO {role}"
    elif wanted in found.places:
        problem = f"{user} may not create tables in schema {wanted!r} of {database}"
        remedy = f"GRANT USAGE, CREATE ON SCHEMA {quoted(wanted)} TO {role}"
    else:
        problem = f"{database} has no schema {wanted!r}, and {user} may not create one"
        remedy = f"CREATE SCHEMA {quoted(wanted)} AUTHORIZATION {role}"
    return f"{problem}; let an administrator run there: {remedy};"


async def look_around(connection: Fetching, names: Collection[str], wanted: str | None) -> Surroundings:
    """In one statement, which needs no privilege; `names` are those of our tables."""
    rows = await connection.fetch(_look_around(names), wanted)
    role, database, encoding, may_create = rows[0][:4]
    places: dict[str, Place] = {}
    on_path: dict[int, str] = {}
    for _, _, _, _, schema, position, may_use, may_make, table, *allowed in rows:
        if schema is None:
            continue
        if position is not None:
            on_path[position] = schema
        tables = places[schema].tables if schema in places else {}
        if table is not None:
            may = frozenset(name for name, has in zip(PRIVILEGES, allowed, strict=True) if has)
            tables = {**tables, table: may}
        places[schema] = Place(schema, may_use, may_make, tables)
    path = [on_path[position] for position in sorted(on_path)]
    return Surroundings(role, database, encoding, may_create, path, places)


def _look_around(names: Collection[str]) -> str:
    """A row for each schema in question and table of ours in it."""
    listed = ", ".join(f"'{name}'" for name in sorted(names))
    allowed = ", ".join(f"has_table_privilege(c.oid, '{privilege}')" for privilege in PRIVILEGES)
    return f"""
        SELECT current_user::text, current_database()::text, current_setting('server_encoding'),
            has_database_privilege(current_database(), 'CREATE'),
            n.nspname::text, array_position(current_schemas(false), n.nspname),
            has_schema_privilege(n.oid, 'USAGE'), has_schema_privilege(n.oid, 'CREATE'),
            c.relname::text, {allowed}
        FROM (SELECT $1::text AS wanted) AS asked
        LEFT JOIN pg_catalog.pg_namespace AS n ON CASE WHEN wanted IS NOT NULL THEN n.nspname = wanted
            ELSE n.nspname IN (current_user, 'public') OR n.nspname = ANY (current_schemas(false)) END
        LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname IN ({listed})
            AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    """  # noqa: S608  # our own constants
