"""What a start would find on a PostgreSQL server."""

from collections.abc import Sequence

from hector.storage.migrate import Found
from hector.storage.postgres.connect import connect
from hector.storage.postgres.migrate import check_privileges
from hector.storage.settings import ServerSettings

_ABOUT = """
SELECT current_setting('server_version'), current_setting('fsync') = 'on',
  (SELECT version FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl),
  current_setting('max_connections')::integer
"""


async def probe(settings: ServerSettings) -> tuple[str, Found, Sequence[str]]:
    """The server, what is there, and what is doubtful about it. Raises `StoreOpenError`."""
    link = await connect(settings)
    try:
        async with link.connection.transaction(readonly=True):
            version, syncs, tls, most = await link.connection.fetchrow(_ABOUT)
        schema, found = await check_privileges(link.connection, settings)
    finally:
        link.connection.terminate()
    # The packager adds his own version behind the first word.
    facts = [f"PostgreSQL {version.split()[0]}", f"schema {schema!r}"]
    facts += ["through a pooler"] if link.pooled else [tls or "without TLS"]
    doubts = []
    if not syncs:
        doubts.append("fsync is off on the server: a power cut may damage the database")
    if settings.max_conns + 1 > most and not link.pooled:
        doubts.append(f"max_conns is {settings.max_conns + 1}, and the server takes {most} (max_connections)")
    return ", ".join(facts), found, doubts
