"""MariaDB as the supervisor runs it."""

import signal
from pathlib import Path
from typing import ClassVar

from tests.servers.instance import Instance, as_options
from tests.servers.options import ADMIN, CERT_USER
from tests.servers.process import ServerProcess, find_program, run_to_end

_PACKAGES = "mariadb-server-core mariadb-client"


class MariaDbInstance(Instance):
    accounts: ClassVar[tuple[str, ...]] = ("mysql",)
    stop_signal = signal.SIGTERM

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    async def _create(self) -> None:
        program = find_program("mariadb-install-db", _PACKAGES)
        where = f"--datadir={self.folder / 'data'}"
        options = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        await run_to_end(self._account, [str(program), "--no-defaults", where, *options], self.folder)
        # The new folder has superusers without a password. With a test database it would have accounts
        # without a name, too, which on a Unix socket take the place of any 'user'@'%'.
        self._own(
            "init.sql",
            "DELETE FROM mysql.global_priv WHERE User = 'root';\n"
            "FLUSH PRIVILEGES;\n"
            f"CREATE OR REPLACE USER {ADMIN}@'%' IDENTIFIED BY '{self.admin_password}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO {ADMIN}@'%' WITH GRANT OPTION;\n"
            f"CREATE USER IF NOT EXISTS {CERT_USER}@'%' REQUIRE X509;\n",
        )

    async def _start(self) -> ServerProcess:
        settings: dict[str, object] = {
            "datadir": self.folder / "data",
            "init-file": self.folder / "init.sql",
            "bind-address": ",".join(self.listen_on),
            "port": self.port,
            "socket": self.socket,
            "pid-file": self.folder / "pid",
            "max-connections": self.options.max_connections,
            "innodb-buffer-pool-size": "64M",
            "performance-schema": "OFF",
            "skip-name-resolve": "ON",
            # Nothing may depend on the server's zone. Nor on its character set: without defaults that is
            # latin1, compared without regard to case.
            "default-time-zone": "+05:30",
        }
        if not self.options.durable:
            # 2: a commit is handed to the system, so it outlives a killed server.
            settings |= {
                "innodb-flush-log-at-trx-commit": 2,
                "innodb-flush-method": "nosync",
                "innodb-doublewrite": "OFF",
            }
        if files := self._own_certificate():
            settings |= {"ssl-ca": files.ca, "ssl-cert": files.cert, "ssl-key": files.key}
        else:
            settings |= {"ssl": "OFF"}
        program = find_program("mariadbd", _PACKAGES)
        return await ServerProcess.start(
            self._account,
            [str(program), "--no-defaults", *as_options(settings)],
            ready=b"ready for connections",
            folder=self.folder,
            log=self.log,
        )
