"""MariaDB for tests, which stands for MySQL, too."""

from collections.abc import Sequence
from typing import ClassVar, assert_never

from tests.servers.database import Database, Driver
from tests.servers.server import Access, DatabaseServer


class MariaDbServer(DatabaseServer):
    driver: ClassVar[Driver] = "mysql"

    async def empty(self, db: Database, tables: Sequence[str]) -> None:
        deletes = [f"DELETE FROM `{table}`" for table in tables]
        await db.run("SET foreign_key_checks = 0", *deletes, admin=True)

    def _create(self, db: Database, *, owner: bool, access: Access, limit: int | None) -> list[str]:
        return [
            f"CREATE DATABASE {db.database}",
            *self._create_user(db, access, limit),
            f"GRANT ALL PRIVILEGES ON {db.database}.* TO {db.user}@'%'",
        ]

    def _add_user(self, db: Database, access: Access) -> list[str]:
        # Who has no privilege in a database may not connect to it; this one shows no data.
        may_connect = f"GRANT SHOW VIEW ON {db.database}.* TO {db.user}@'%'"
        return [*self._create_user(db, access, None), may_connect]

    def _users_of(self, db: Database) -> str:
        return f"SELECT User FROM mysql.user WHERE User = '{db.user}' OR User LIKE '{db.user}\\_%'"

    def _drop(self, db: Database, users: Sequence[str]) -> list[str]:
        return [f"DROP DATABASE {db.database}", *(f"DROP USER {user}@'%'" for user in users)]

    def _create_user(self, db: Database, access: Access, limit: int | None) -> list[str]:
        match access:
            case "any":
                demand = ""
            case "tls":
                demand = "REQUIRE SSL"
            case "certificate":
                demand = "REQUIRE X509"
            case "certificate_alone":
                return []  # made when the server starts
            case "plain":
                raise NotImplementedError("this server cannot refuse TLS: take one without")
            case _:
                assert_never(access)
        password = db.password.replace("\\", "\\\\").replace("'", "\\'")
        most = f" WITH MAX_USER_CONNECTIONS {limit}" if limit is not None else ""
        return [f"CREATE USER {db.user}@'%' IDENTIFIED BY '{password}' {demand}{most}"]
