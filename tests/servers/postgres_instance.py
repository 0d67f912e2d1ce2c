"""PostgreSQL as the supervisor runs it."""

import signal
from pathlib import Path
from typing import ClassVar

from tests.servers.instance import Instance, as_options
from tests.servers.options import ADMIN, CERT_USER
from tests.servers.process import ServerProcess, find_program, run_to_end

# The first line that fits decides. All sign in with passwords but one, and some in certain ways only.
_HBA = f"""
local     all {ADMIN}                trust
local     all all                    scram-sha-256
hostssl   all {CERT_USER} all        cert
host      all {CERT_USER} all        reject
hostnossl all +tls_only all          reject
hostssl   all +plain_only all        reject
hostssl   all +certificate_only all  scram-sha-256 clientcert=verify-ca
host      all +certificate_only all  reject
host      all all all                scram-sha-256
"""
# What a client certificate can be demanded for, a server without TLS cannot have.
_HBA_WITHOUT_TLS = f"""
local all {ADMIN}  trust
local all all      scram-sha-256
host  all all all  scram-sha-256
"""


class PostgresInstance(Instance):
    accounts: ClassVar[tuple[str, ...]] = ("postgres",)
    stop_signal = signal.SIGINT
    drop_signal = signal.SIGQUIT
    """Not SIGKILL, which would leave its shared memory behind."""

    @property
    def socket(self) -> Path:
        return self.folder

    async def _create(self) -> None:
        password = self._own("password", self.admin_password)
        await run_to_end(
            self._account,
            [
                str(_postgres_program("initdb")),
                f"--pgdata={self.folder / 'data'}",
                f"--username={ADMIN}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--no-sync",
                "--no-instructions",
                "--encoding=UTF8",
                # A collation that compares as people do, as most servers have, so that a column without one
                # of its own is seen; and one that is in PostgreSQL, whatever locales the system has.
                "--locale=C",
                "--locale-provider=icu",
                "--icu-locale=en-US",
            ],
            self.folder,
        )
        password.unlink()
        with_tls = self.options.certificate != "none"
        self._own("pg_hba.conf", _HBA if with_tls else _HBA_WITHOUT_TLS)

    async def _start(self) -> ServerProcess:
        settings = {
            "listen_addresses": ",".join(self.listen_on),
            "port": self.port,
            "unix_socket_directories": self.folder,
            "hba_file": self.folder / "pg_hba.conf",
            "max_connections": self.options.max_connections,
            "shared_buffers": "64MB",
            # Not in /dev/shm, which is small in containers and outlives a killed server.
            "dynamic_shared_memory_type": "mmap",
            # Nothing may depend on the server's zone.
            "timezone": "Asia/Kolkata",
        }
        if not self.options.durable:
            # With synchronous_commit a commit is handed to the system, so it outlives a killed server.
            settings |= {"fsync": "off", "full_page_writes": "off", "max_wal_size": "128MB"}
        if files := self._own_certificate():
            settings |= {
                "ssl": "on",
                "ssl_ca_file": files.ca,
                "ssl_cert_file": files.cert,
                "ssl_key_file": files.key,
            }
        return await ServerProcess.start(
            self._account,
            [
                str(_postgres_program("postgres")),
                "-D",
                str(self.folder / "data"),
                *as_options(settings),
            ],
            ready=b"database system is ready to accept connections",
            folder=self.folder,
            log=self.log,
        )


def _postgres_program(name: str) -> Path:
    """Debian keeps them out of the path, by version: 15, which is what we promise, or else the newest."""
    versions = list(Path("/usr/lib/postgresql").glob("[0-9]*"))
    versions.sort(key=lambda version: (version.name == "15", int(version.name)), reverse=True)
    folders = [version / "bin" for version in versions]
    return find_program(name, "postgresql", *folders)
