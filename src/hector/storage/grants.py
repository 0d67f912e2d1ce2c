"""Least privilege: what a role needs that serves with the schema in place, and what it lacks."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, assert_never

from hector.storage.migrate import HECTOR, VERSION_TABLE, History

PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")


def needed(history: History = HECTOR) -> Mapping[str, Sequence[str]]:
    """By table."""
    return dict.fromkeys(sorted(history.metadata.tables), PRIVILEGES) | {VERSION_TABLE: PRIVILEGES[:1]}


def missing(has: Mapping[str, Collection[str]], history: History = HECTOR) -> Mapping[str, Sequence[str]]:
    """By table, of a role whose privileges are given by table."""
    lacks = {
        table: [privilege for privilege in privileges if privilege not in has.get(table, ())]
        for table, privileges in needed(history).items()
    }
    return {table: privileges for table, privileges in lacks.items() if privileges}


def told(lacks: Mapping[str, Sequence[str]]) -> str:
    """`INSERT, UPDATE on files, turns; SELECT on hector_version`."""
    tables: dict[str, list[str]] = {}
    for table, privileges in lacks.items():
        tables.setdefault(", ".join(privileges), []).append(table)
    return "; ".join(f"{privileges} on {', '.join(names)}" for privileges, names in tables.items())


def refused(role: str, lacks: Mapping[str, Sequence[str]], *, and_usage_of: str | None = None) -> str:
    """Why such a role cannot serve, and what helps; `and_usage_of` names a schema."""
    usage = f"USAGE on schema {and_usage_of}" if and_usage_of else ""
    return (
        f"its user {role!r} lacks {'; '.join(filter(None, [usage, told(lacks)]))};"
        f" `hector db grants {shlex.quote(role)}` prints the statements that give it all that it needs"
    )


def grants(
    driver: Literal["postgres", "mysql"], role: str, *, database: str, schema: str = "public", host: str = "%"
) -> list[str]:
    """The statements that let a role serve, each ending in a semicolon.

    `schema` is PostgreSQL's, `host` whence MySQL's user comes.
    """
    match driver:
        case "postgres":
            return _on_postgres(quoted(role), quoted(database), quoted(schema))
        case "mysql":
            return _on_mysql(f"{literal(role)}@{literal(host)}", quoted(database, "`"))
        case _:
            assert_never(driver)


def quoted(name: str, mark: str = '"') -> str:
    """As an identifier."""
    return f"{mark}{name.replace(mark, mark * 2)}{mark}"


def literal(text: str) -> str:
    """As MySQL reads it."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _on_postgres(role: str, database: str, schema: str) -> list[str]:
    statements = [
        f"GRANT CONNECT ON DATABASE {database} TO {role};",
        f"GRANT USAGE ON SCHEMA {schema} TO {role};",
    ]
    tables: dict[Sequence[str], list[str]] = {}
    for table, privileges in needed().items():
        tables.setdefault(privileges, []).append(f"{schema}.{quoted(table)}")
    return statements + [
        f"GRANT {', '.join(privileges)} ON {', '.join(names)} TO {role};"
        for privileges, names in tables.items()
    ]


def _on_mysql(user: str, database: str) -> list[str]:
    return [
        f"GRANT {', '.join(privileges)} ON {database}.{quoted(table, '`')} TO {user};"
        for table, privileges in needed().items()
    ]
