"""A running server, as tests use it."""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from tests.servers.control import Control
from tests.servers.database import Database, Driver, Row, TlsFiles
from tests.servers.options import CERT_USER, Options

Access: TypeAlias = Literal["any", "tls", "plain", "certificate", "certificate_alone"]
"""How a user must come: in any way; with TLS; without; with a client certificate beside the password; with a
client certificate and no password, as the user `hector_cert`."""


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int
    socket: Path
    server_port: int
    admin_user: str
    admin_password: str
    tls: TlsFiles
    log: Path
    pid: int

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> "Address":
        tls = TlsFiles(**{name: Path(path) for name, path in answer["tls"].items()})
        paths = {"socket": Path(answer["socket"]), "log": Path(answer["log"])}
        return cls(**{**answer, **paths, "tls": tls})


class DatabaseServer(ABC):
    """Tests share it, each with a database of its own.

    `stop` and its like are for a server that a test has to itself: fixtures `own_postgres`, `own_mysql`.
    """

    driver: ClassVar[Driver]

    def __init__(self, control: Control, name: str | None = None, options: Options | None = None) -> None:
        """Starts it if none of that name runs. Blocks; raises `StartError`."""
        self._control = control
        self._name = name or self.driver
        self._options = asdict(options or Options())
        self.address = self._start()

    async def create_database(
        self, *, owner: bool = False, access: Access = "any", max_connections: int | None = None
    ) -> Database:
        """Empty, with a user who has all privileges on it, or is its owner where PostgreSQL tells them apart.

        `max_connections` is the user's.
        """
        mark = secrets.token_hex(6)
        db = self._database(f"sessions_{mark}", f"hector_{mark}", access)
        await self._admin(self._create(db, owner=owner, access=access, limit=max_connections))
        return db

    async def add_user(self, db: Database, *, access: Access = "any") -> Database:
        """The same database with another user, who may connect and no more."""
        added = self._database(db.database, f"{db.user}_{secrets.token_hex(2)}", access)
        await self._admin(self._add_user(added, access))
        return added

    async def drop_database(self, db: Database) -> None:
        """Its users, too, and whoever is connected to it. `hector_cert` stays: others have it, too."""
        found = await self._admin([self._users_of(db)])
        users = [user for (user,) in found if user != CERT_USER]
        await self._admin(self._drop(db, users))

    @abstractmethod
    async def empty(self, db: Database, tables: Sequence[str]) -> None:
        """Delete all rows of these tables, in whatever order their keys demand."""

    async def stop(self) -> None:
        """In good order, as an operator stops it: clients are cut off."""
        await self._ask("stop")

    async def kill(self) -> None:
        await self._ask("kill")

    async def start(self) -> None:
        """After `stop` or `kill`, on the same port, with its data."""
        self.address = await asyncio.to_thread(self._start)

    async def freeze(self) -> None:
        """It hangs: connections stay open, nothing is answered. Linux only."""
        await self._ask("freeze")

    async def thaw(self) -> None:
        await self._ask("thaw")

    async def remove(self) -> None:
        """End it, and forget its data."""
        await self._ask("remove")

    @abstractmethod
    def _create(self, db: Database, *, owner: bool, access: Access, limit: int | None) -> list[str]: ...

    @abstractmethod
    def _add_user(self, db: Database, access: Access) -> list[str]: ...

    @abstractmethod
    def _users_of(self, db: Database) -> str: ...

    @abstractmethod
    def _drop(self, db: Database, users: Sequence[str]) -> list[str]: ...

    def _start(self) -> Address:
        return Address.parse(
            self._control.ask(do="start", name=self._name, kind=self.driver, options=self._options)
        )

    async def _ask(self, do: str) -> None:
        # In a thread: what is tested may run on this loop.
        await asyncio.to_thread(self._control.ask, do=do, name=self._name)

    def _database(self, database: str, user: str, access: Access) -> Database:
        known = {one.name for one in fields(Database)}
        alone = access == "certificate_alone"
        return Database(
            driver=self.driver,
            user=CERT_USER if alone else user,
            # What a URL, YAML and a shell give a meaning to.
            password="" if alone else f"p@ss:/?#%&'\"$ {secrets.token_hex(4)}",
            database=database,
            **{one.name: getattr(self.address, one.name) for one in fields(Address) if one.name in known},
        )

    async def _admin(self, statements: Sequence[str]) -> list[Row]:
        home = "postgres" if self.driver == "postgres" else "mysql"
        return await self._database(home, self.address.admin_user, "any").run(*statements, admin=True)
