"""PgBouncer for tests."""

from dataclasses import replace

from tests.servers.control import Control
from tests.servers.database import Database


class PgBouncer:
    """In transaction mode, in front of all databases of the shared PostgreSQL server."""

    def __init__(self, control: Control) -> None:
        """Blocks; raises `StartError`. The server runs already."""
        self.port = int(control.ask(do="start", name="pgbouncer", kind="pgbouncer")["port"])

    def before(self, db: Database) -> Database:
        return replace(db, port=self.port)
