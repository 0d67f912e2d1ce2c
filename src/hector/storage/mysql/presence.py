"""MySQL and MariaDB: locks by name, which belong to a connection."""

import hashlib
import secrets
from collections.abc import Mapping, Sequence

from sqlalchemy import text

from hector.storage.operations import Operation, Statement, Step, execute, fetch

# Such locks are one server's: of several that form a cluster, another knows nothing of them.
_SERVER = Statement(text("SELECT CONCAT_WS('/', @@hostname, @@port, @@server_id)"))
# Seconds. Connections are otherwise ended after minutes, for the sake of those with a transaction; beats may
# be rarer, and between two of them no row is held.
_STAY = Statement(text("SET SESSION wait_timeout = 3600"))
_TAKE = Statement(text("SELECT GET_LOCK(:lock, 0)"))
_HOLDER = Statement(text("SELECT IS_USED_LOCK(:lock)"))


class MySqlLocks:
    """Implements `ServerLocks`. A name is `SERVER.TOKEN`: a digest, and what is random."""

    def take(self) -> Operation[str | None]:
        yield from execute(_STAY, {})
        name = f"{(yield from _server())}.{secrets.token_hex(8)}"
        ((taken,),) = yield from fetch(_TAKE, {"lock": _lock(name)})
        return name if taken == 1 and (yield from self.look([name])).get(name) else None

    def look(self, names: Sequence[str]) -> Operation[Mapping[str, bool]]:
        server = yield from _server()
        here = [name for name in names if name.startswith(f"{server}.")]
        if not here:
            return {}
        results = yield [Step(_HOLDER, {"lock": _lock(name)}) for name in here]
        return {name: result.rows[0][0] is not None for name, result in zip(here, results, strict=True)}


def _server() -> Operation[str]:
    ((name,),) = yield from fetch(_SERVER, {})
    return hashlib.sha256(str(name).encode()).hexdigest()[:12]


def _lock(name: str) -> str:
    """Such names are all programs'."""
    return f"hector-{name}"
