"""A server as the supervisor runs it: made in a folder, started, stopped, started again."""

import secrets
import shutil
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, assert_never

from tests.servers.certificates import Certificates, ServerFiles
from tests.servers.options import Options
from tests.servers.process import (
    ANYWHERE,
    LISTEN_ON,
    ServerProcess,
    StartError,
    choose_account,
    free_port,
)

_PORTS_TO_TRY = 5


class Instance(ABC):
    """A server in a folder of its own; it keeps its port and its data when it is stopped."""

    accounts: ClassVar[tuple[str, ...]]
    """Who it runs as if we are root: the first that there is, or nobody."""
    stop_signal: signal.Signals
    """Ends it in good order."""
    drop_signal: signal.Signals = signal.SIGKILL
    """Ends it at once, when its data will not be needed again."""

    def __init__(self, folder: Path, certificates: Certificates, options: Options) -> None:
        self.folder = folder
        self.options = options
        self.log = folder / "log"
        self.port = 0
        self.admin_password = secrets.token_hex(8)
        self._account = choose_account(*self.accounts)
        self._certificates = certificates
        self._process: ServerProcess | None = None

    @property
    @abstractmethod
    def socket(self) -> Path: ...

    @property
    def listen_on(self) -> tuple[str, ...]:
        return ANYWHERE if self.options.anywhere else LISTEN_ON

    @property
    def process(self) -> ServerProcess:
        if self._process is None:
            raise StartError(f"the server in {self.folder} is stopped")
        return self._process

    async def start(self) -> None:
        """Does nothing if it runs. Raises `StartError`."""
        if self._process:
            return
        if self.port:
            self._process = await self._start()
            return
        self.folder.mkdir(mode=0o700)
        self._account.give(self.folder)
        await self._create()
        for left in reversed(range(_PORTS_TO_TRY)):
            self.port = free_port()
            try:
                self._process = await self._start()
            except StartError as error:
                # Somebody took the port after we had looked.
                if not left or "Address already in use" not in str(error):
                    raise
            else:
                return

    async def end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process:
            await process.end(number)

    @abstractmethod
    async def _create(self) -> None: ...

    @abstractmethod
    async def _start(self) -> ServerProcess: ...

    def _own(self, name: str, content: str | bytes) -> Path:
        """A file that the server may read, and nobody else but us."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        self._account.give(path)
        return path

    def _own_certificate(self) -> ServerFiles | None:
        """Servers refuse a key that others may read, so each has a copy."""
        match self.options.certificate:
            case "none":
                return None
            case "good":
                found = self._certificates.server
            case "expired":
                found = self._certificates.expired
            case other:
                assert_never(other)
        return ServerFiles(
            *(self._own(path.name, path.read_bytes()) for path in (found.ca, found.cert, found.key))
        )


def as_options(settings: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


def remove(folder: Path) -> None:
    # A server that was killed may leave a socket or a lock; nothing there is worth an error.
    shutil.rmtree(folder, ignore_errors=True)
