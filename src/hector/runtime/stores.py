"""From a section of `session_stores` to an open store."""

from pathlib import Path

from hector.config.model import Config, MemoryStoreSection, SqlStoreSection
from hector.config.sql import MySqlSection, PostgresSection, SqliteSection
from hector.storage.opening import open_memory, open_server, open_sqlite
from hector.storage.settings import ServerSettings, Tls
from hector.storage.sqlite import SqliteSettings
from hector.storage.store import SqlSessionStore

PRIVATE_STORE = ""
"""Where agents keep their sessions that name no session store: in memory."""


async def open_store(config: Config, name: str) -> SqlSessionStore:
    """Raises `StoreOpenError`."""
    section = None if name == PRIVATE_STORE else config.session_stores[name]
    match section:
        case None | MemoryStoreSection():
            return open_memory()
        case SqlStoreSection(sql=SqliteSection() as sql):
            return await open_sqlite(name, sqlite_settings(section, sql))
        case SqlStoreSection(sql=PostgresSection() | MySqlSection() as sql):
            return await open_server(sql.driver, server_settings(name, section, sql))
        case _:
            raise TypeError(f"no session store is opened from a {type(section).__name__}")


def sqlite_settings(store: SqlStoreSection, sql: SqliteSection) -> SqliteSettings:
    return SqliteSettings(
        Path(sql.database),
        sql.synchronous,
        # One connection writes, the others read.
        readers=sql.max_conns - 1,
        max_idle=sql.max_idle,
        lifetime=sql.conn_max_lifetime,
        auto_migrate=store.auto_migrate,
    )


def server_settings(name: str, store: SqlStoreSection, sql: PostgresSection | MySqlSection) -> ServerSettings:
    tls = Tls(sql.ssl_mode, sql.ssl_cert, sql.ssl_key, sql.ssl_root_cert)
    return ServerSettings(
        store=name,
        host=sql.host,
        port=sql.port,
        user=sql.user,
        database=sql.database,
        password=sql.password.get_secret_value() if sql.password else "",
        tls=tls,
        schema=sql.schema_name if isinstance(sql, PostgresSection) else None,
        options=sql.options,
        # One connection beats, the others are the pool's.
        max_conns=sql.max_conns - 1,
        max_idle=sql.max_idle,
        lifetime=sql.conn_max_lifetime,
        connect_timeout=sql.connect_timeout,
        statement_timeout=sql.statement_timeout,
        auto_migrate=store.auto_migrate,
    )
