"""One database on a running server, and all that a client of it must know."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, assert_never
from urllib.parse import quote

from hector.storage.settings import ServerSettings

Driver: TypeAlias = Literal["postgres", "mysql"]
Row: TypeAlias = tuple[Any, ...]


class Execute(Protocol):
    async def __call__(self, statement: str, /) -> list[Row]: ...


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What a client of a server has, in PEM."""

    ca: Path
    """Signed the server's certificate, which is for `localhost` and 127.0.0.1, not for 127.0.0.2."""
    cert: Path
    """The client's, for the user `hector_cert`."""
    key: Path
    cert_with_key: Path
    """Both in one file."""
    other_ca: Path
    """Signed nothing."""

    def context(self, *, certificate: bool = False) -> ssl.SSLContext:
        """Checks all of the server's certificate; sends the client's if wanted."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if certificate:
            context.load_cert_chain(self.cert, self.key)
        return context


@dataclass(frozen=True, slots=True)
class Database:
    """A database and a user of it. `admin_user` is the server's superuser."""

    driver: Driver
    host: str
    port: int
    socket: Path
    """PostgreSQL: the folder of the socket; MySQL: the socket."""
    server_port: int
    """The server's own; differs from `port` where a pooler stands in between."""
    user: str
    password: str
    database: str
    admin_user: str
    admin_password: str
    tls: TlsFiles

    @property
    def dsn(self) -> str:
        who = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"{self.driver}://{who}@{self.host}:{self.port}/{self.database}"

    def section(self, **more: Any) -> dict[str, Any]:
        """For `session_stores.<name>.sql`; what is given replaces, and None removes."""
        found = {
            "driver": self.driver,
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "database": self.database,
            **more,
        }
        return {key: value for key, value in found.items() if value is not None}

    def settings(self, **changes: Any) -> ServerSettings:
        settings = ServerSettings(
            store="main",
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=self.database,
        )
        return replace(settings, **changes)

    async def run(
        self, *statements: str, admin: bool = False, tls: ssl.SSLContext | None = None
    ) -> list[Row]:
        """Run statements on a connection of their own, each committed; the rows of the last."""
        rows: list[Row] = []
        async with self.connected(admin=admin, tls=tls) as execute:
            for statement in statements:
                rows = await execute(statement)
        return rows

    def connected(
        self, *, admin: bool = False, tls: ssl.SSLContext | None = None
    ) -> AbstractAsyncContextManager[Execute]:
        """What runs a statement on a raw connection. Raises what the driver raises.

        As the user over TCP, through a pooler where there is one, in the clear unless `tls` is given;
        as `admin`, straight through the server's Unix socket.
        """
        address = {
            "host": str(self.socket) if admin else self.host,
            "port": self.server_port if admin else self.port,
            "user": self.admin_user if admin else self.user,
            "password": self.admin_password if admin else self.password,
            "database": self.database,
        }
        match self.driver:
            case "postgres":
                return _connected_to_postgres(address, tls)
            case "mysql":
                return _connected_to_mysql(address, tls)
            case other:
                assert_never(other)


# The drivers are imported where they are used: the supervisor, which imports this module, needs neither.


@asynccontextmanager
async def _connected_to_postgres(
    address: Mapping[str, Any], tls: ssl.SSLContext | None
) -> AsyncIterator[Execute]:
    import asyncpg

    # Statements without names: there may be a pooler.
    connection = await asyncpg.connect(**address, ssl=tls or False, statement_cache_size=0)

    async def execute(statement: str) -> list[Row]:
        return [tuple(row) for row in await connection.fetch(statement)]

    try:
        yield execute
    finally:
        await connection.close()


@asynccontextmanager
async def _connected_to_mysql(
    address: Mapping[str, Any], tls: ssl.SSLContext | None
) -> AsyncIterator[Execute]:
    import asyncmy

    where = dict(address)
    if where["host"].startswith("/"):
        where["unix_socket"] = where.pop("host")
    connection = await asyncmy.connect(**where, ssl=tls, autocommit=True, charset="utf8mb4")

    async def execute(statement: str) -> list[Row]:
        async with connection.cursor() as cursor:
            await cursor.execute(statement)
            return [tuple(row) for row in await cursor.fetchall() or ()]

    try:
        yield execute
    finally:
        await connection.ensure_closed()
