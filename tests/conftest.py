"""Database servers: started by the first test that asks, shared by all workers, gone with the last."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.backends import BACKENDS, Backend, backend_for
from tests.servers import (
    SERVERS,
    Control,
    Database,
    DatabaseServer,
    MariaDbServer,
    Options,
    PgBouncer,
    PostgresServer,
)


def pytest_configure() -> None:
    """Let the processes that tests start heed the signals that this one was started to ignore.

    A shell starts what goes into the background deaf to Ctrl-C, and `nohup` to a hang-up; both are inherited,
    a handler is not.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """The supervisor of the servers, the same for all workers of pytest-xdist."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # A worker has a folder in that of the run.
        folder = folder.parent
    control = Control.join(folder / "servers")
    yield control
    control.leave()


@pytest.fixture(scope="session")
def postgres_server(servers: Control) -> PostgresServer:
    return PostgresServer(servers)


@pytest.fixture(scope="session")
def mysql_server(servers: Control) -> MariaDbServer:
    return MariaDbServer(servers)


@pytest.fixture(scope="session", params=["postgres", "mysql"])
def database_server(request: pytest.FixtureRequest) -> DatabaseServer:
    """Each of them in turn."""
    return cast("DatabaseServer", request.getfixturevalue(f"{request.param}_server"))


@pytest.fixture(scope="session")
def postgres_without_tls(servers: Control) -> PostgresServer:
    return PostgresServer(servers, "postgres-without-tls", Options(certificate="none"))


@pytest.fixture(scope="session")
def mysql_without_tls(servers: Control) -> MariaDbServer:
    return MariaDbServer(servers, "mysql-without-tls", Options(certificate="none"))


@pytest.fixture(scope="session")
def postgres_expired(servers: Control) -> PostgresServer:
    """Its certificate has expired."""
    return PostgresServer(servers, "postgres-expired", Options(certificate="expired"))


@pytest.fixture(scope="session")
def mysql_expired(servers: Control) -> MariaDbServer:
    """Its certificate has expired."""
    return MariaDbServer(servers, "mysql-expired", Options(certificate="expired"))


@pytest.fixture(scope="session")
def pgbouncer(servers: Control, postgres_server: PostgresServer) -> PgBouncer:
    return PgBouncer(servers)


@pytest.fixture
async def postgres_db(postgres_server: PostgresServer) -> AsyncIterator[Database]:
    """Empty, and made as the guide says: its user may create nothing in `public`."""
    db = await postgres_server.create_database()
    yield db
    await postgres_server.drop_database(db)


@pytest.fixture
async def mysql_db(mysql_server: MariaDbServer) -> AsyncIterator[Database]:
    """Empty."""
    db = await mysql_server.create_database()
    yield db
    await mysql_server.drop_database(db)


@pytest.fixture
async def server_db(database_server: DatabaseServer) -> AsyncIterator[Database]:
    """Empty, on each server in turn."""
    db = await database_server.create_database()
    yield db
    await database_server.drop_database(db)


@pytest.fixture
def pgbouncer_db(pgbouncer: PgBouncer, postgres_db: Database) -> Database:
    """Empty, and reached through PgBouncer."""
    return pgbouncer.before(postgres_db)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def worker_postgres_db(postgres_server: PostgresServer) -> Database:
    """One for many tests of a worker, which share a schema in it and empty its tables (`server.empty`)."""
    return await postgres_server.create_database()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def worker_mysql_db(mysql_server: MariaDbServer) -> Database:
    """One for many tests of a worker, which share a schema in it and empty its tables (`server.empty`)."""
    return await mysql_server.create_database()


@pytest.fixture
async def own_postgres(servers: Control) -> AsyncIterator[PostgresServer]:
    """For one test, which may stop it, kill it and make it hang."""
    server = PostgresServer(servers, f"postgres-{uuid4().hex}")
    yield server
    await server.remove()


@pytest.fixture
async def own_mysql(servers: Control) -> AsyncIterator[MariaDbServer]:
    """For one test, which may stop it, kill it and make it hang."""
    server = MariaDbServer(servers, f"mysql-{uuid4().hex}")
    yield server
    await server.remove()


@pytest.fixture(params=["postgres", "mysql"])
async def own_server(servers: Control, request: pytest.FixtureRequest) -> AsyncIterator[DatabaseServer]:
    """Each in turn, for one test, which may stop it, kill it and make it hang."""
    server = SERVERS[request.param](servers, f"{request.param}-{uuid4().hex}")
    yield server
    await server.remove()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Each of the places where a session store may live, in turn."""
    return backend_for(request, tmp_path)
