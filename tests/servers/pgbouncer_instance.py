"""PgBouncer as the supervisor runs it."""

import signal
from pathlib import Path
from typing import ClassVar

from tests.servers.certificates import Certificates
from tests.servers.instance import Instance
from tests.servers.options import ADMIN, Options
from tests.servers.postgres_instance import PostgresInstance
from tests.servers.process import HOST, ServerProcess, find_program


class PgBouncerInstance(Instance):
    """In transaction mode, in front of all databases of a server; clients sign in as they do there."""

    accounts: ClassVar[tuple[str, ...]] = ("postgres",)
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, certificates: Certificates, server: PostgresInstance) -> None:
        super().__init__(folder, certificates, Options())
        self._server = server
        self.admin_password = server.admin_password

    @property
    def socket(self) -> Path:
        return self._server.socket

    async def _create(self) -> None:
        self._own("users", f'"{ADMIN}" "{self.admin_password}"\n')

    async def _start(self) -> ServerProcess:
        files = self._own_certificate()
        assert files
        settings = {
            "listen_addr": HOST,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "pool_mode": "transaction",
            # Fewer than a store has, so that its connections share them.
            "default_pool_size": 4,
            "max_client_conn": 200,
            "server_idle_timeout": 10,
            "auth_type": "scram-sha-256",
            "auth_file": self.folder / "users",
            "auth_user": ADMIN,
            "client_tls_sslmode": "prefer",
            "client_tls_ca_file": files.ca,
            "client_tls_cert_file": files.cert,
            "client_tls_key_file": files.key,
        }
        config = [
            "[databases]",
            f"* = host={self._server.socket} port={self._server.port}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        path = self._own("pgbouncer.ini", "\n".join(config) + "\n")
        program = find_program("pgbouncer", "pgbouncer")
        return await ServerProcess.start(
            self._account, [str(program), str(path)], ready=b"process up", folder=self.folder, log=self.log
        )
