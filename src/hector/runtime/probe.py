"""What a start would find in a session store, seen without changing it."""

from collections.abc import Sequence
from dataclasses import dataclass

from hector.config.model import Config, MemoryStoreSection, SqlStoreSection
from hector.config.sql import MySqlSection, PostgresSection, SqliteSection
from hector.runtime.stores import server_settings
from hector.storage.probing import Findings, probe_server, probe_sqlite


@dataclass(frozen=True, slots=True)
class StoreProbe:
    name: str
    driver: str
    where: str
    """`host:port/database` or a path, without secrets; '' in memory."""
    server: str | None
    """`PostgreSQL 15.18, TLSv1.3`; None in memory."""
    schema: str | None = None
    """The version of Hector's tables; None where a start has yet to make them, and in memory."""
    warnings: Sequence[str] = ()


async def probe_store(config: Config, name: str) -> StoreProbe:
    """One try, whatever `connect_retry` says. Raises `StoreOpenError` where a start would fail."""
    match config.session_stores[name]:
        case MemoryStoreSection():
            return StoreProbe(name, "memory", "", None)
        case SqlStoreSection(sql=sql) as store:
            found = await _look(name, store, sql)
            return StoreProbe(name, sql.driver, _where(sql), found.server, found.schema, found.warnings)


async def _look(
    name: str, store: SqlStoreSection, sql: SqliteSection | PostgresSection | MySqlSection
) -> Findings:
    match sql:
        case SqliteSection():
            return await probe_sqlite(name, sql.database.resolve(), auto_migrate=store.auto_migrate)
        case PostgresSection() | MySqlSection():
            return await probe_server(sql.driver, server_settings(name, store, sql))


def _where(sql: SqliteSection | PostgresSection | MySqlSection) -> str:
    match sql:
        case SqliteSection():
            return str(sql.database)
        case PostgresSection() | MySqlSection():
            host = f"[{sql.host}]" if ":" in sql.host else sql.host
            return f"{host}:{sql.port}/{sql.database}"
