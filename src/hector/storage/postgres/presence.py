"""PostgreSQL: advisory locks of a session."""

import secrets
from collections.abc import Mapping, Sequence

from sqlalchemy import BigInteger, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY

from hector.storage.operations import Operation, Statement, execute, fetch

# Such locks are the server's as it was started: after that nobody holds any.
_SERVER = "CAST(extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000 AS bigint)"
# Nothing that is written by the connection that beats must outlive a loss of power.
_DO_NOT_SYNC = Statement(text("SELECT pg_catalog.set_config('synchronous_commit', 'off', false)"))
_TAKE = Statement(
    text(f"SELECT {_SERVER}, pg_catalog.pg_try_advisory_lock(:key)").bindparams(
        bindparam("key", type_=BigInteger)
    )
)
_HELD = Statement(
    text(
        f"""
        SELECT here.server, locks.key FROM (SELECT {_SERVER} AS server) AS here LEFT JOIN (
            SELECT (CAST(classid AS bigint) << 32) | CAST(objid AS bigint) AS key FROM pg_catalog.pg_locks
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND database = (
                SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
        ) AS locks ON locks.key = ANY (:keys)
        """  # noqa: S608  # our own constants
    ).bindparams(bindparam("keys", type_=ARRAY(BigInteger)))
)


class PostgresLocks:
    """Implements `ServerLocks`. A name is `SERVER.KEY`, both hexadecimal; the key is random."""

    def take(self) -> Operation[str | None]:
        yield from execute(_DO_NOT_SYNC, {})
        token = secrets.token_hex(8)
        ((server, taken),) = yield from fetch(_TAKE, {"key": _key(token)})
        name = f"{server:x}.{token}"
        # Some that speak PostgreSQL's language say yes and lock nothing.
        return name if taken and (yield from self.look([name])).get(name) else None

    def look(self, names: Sequence[str]) -> Operation[Mapping[str, bool]]:
        keys = {name: _key(name.rpartition(".")[2]) for name in names}
        rows = yield from fetch(_HELD, {"keys": [*keys.values()]})
        server, held = f"{rows[0][0]:x}", {key for _, key in rows}
        return {name: key in held for name, key in keys.items() if name.startswith(f"{server}.")}


def _key(token: str) -> int:
    return int.from_bytes(bytes.fromhex(token), signed=True)
