"""PostgreSQL for tests."""

from collections.abc import Sequence
from typing import ClassVar

from tests.servers.database import Database, Driver
from tests.servers.server import Access, DatabaseServer

_GROUPS: dict[Access, str] = {"tls": "tls_only", "plain": "plain_only", "certificate": "certificate_only"}
"""Roles by which pg_hba.conf tells users apart."""

# DELETE, as TRUNCATE makes a new file for each table and index. A replica checks no foreign key, so the order
# is any. The tables may be in any schema.
_EMPTY = """
DO $$
DECLARE
  place record;
  emptied int := 0;
BEGIN
  SET LOCAL session_replication_role = replica;
  FOR place IN SELECT schemaname, tablename FROM pg_tables WHERE tablename IN ({names})
      AND schemaname NOT IN ('pg_catalog', 'information_schema') LOOP
    EXECUTE format('DELETE FROM %I.%I', place.schemaname, place.tablename);
    emptied := emptied + 1;
  END LOOP;
  IF emptied < {count} THEN
    RAISE undefined_table USING MESSAGE = 'not all of these tables exist';
  END IF;
END $$"""


class PostgresServer(DatabaseServer):
    driver: ClassVar[Driver] = "postgres"

    async def empty(self, db: Database, tables: Sequence[str]) -> None:
        names = ", ".join(map(_literal, tables))
        await db.run(_EMPTY.format(names=names, count=len(tables)), admin=True)

    def _create(self, db: Database, *, owner: bool, access: Access, limit: int | None) -> list[str]:
        return [
            *self._create_user(db, access, limit),
            f"CREATE DATABASE {db.database}" + (f" OWNER {db.user}" if owner else ""),
            f"GRANT ALL PRIVILEGES ON DATABASE {db.database} TO {db.user}",
        ]

    def _add_user(self, db: Database, access: Access) -> list[str]:
        # PUBLIC may connect.
        return self._create_user(db, access, None)

    def _users_of(self, db: Database) -> str:
        return f"SELECT rolname FROM pg_roles WHERE rolname = '{db.user}' OR rolname LIKE '{db.user}\\_%'"

    def _drop(self, db: Database, users: Sequence[str]) -> list[str]:
        return [f"DROP DATABASE {db.database} WITH (FORCE)", *(f"DROP ROLE {user}" for user in users)]

    def _create_user(self, db: Database, access: Access, limit: int | None) -> list[str]:
        if access == "certificate_alone":
            return [_unless_there(f"CREATE ROLE {db.user} LOGIN")]
        group = _GROUPS.get(access)
        made = [_unless_there(f"CREATE ROLE {group}")] if group else []
        user = f"CREATE USER {db.user} PASSWORD {_literal(db.password)}"
        if limit is not None:
            user += f" CONNECTION LIMIT {limit}"
        return [*made, user + (f" IN ROLE {group}" if group else "")]


def _unless_there(create_role: str) -> str:
    # Two that make it at once may also meet in the catalog's unique index.
    return f"DO $$ BEGIN {create_role}; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
