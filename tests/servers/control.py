"""A connection to the supervisor, which is started by whoever comes first."""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.servers.process import StartError

MEETING_POINT = "connection"
"""The name of the supervisor's socket in its folder."""
_ROOT = Path(__file__).parents[2]
_ROOM = 2 << 30
"""Bytes: several times what the servers of a run take. A container may have 64 MB in all."""
_ANSWERS_WITHIN = 120.0
"""Seconds; a server's own start has a limit below it."""


def _memory() -> Path | None:
    """A database is a few hundred files, which a disk that others keep busy takes long to make."""
    folder = Path("/dev/shm")
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return folder if found.f_bavail * found.f_frsize >= _ROOM and os.access(folder, os.W_OK) else None


class Control:
    """Blocks; its threads take turns. Leave it when done: the servers stop when nobody has one any more."""

    def __init__(self, connection: socket.socket, folder: Path) -> None:
        self.folder = folder
        connection.settimeout(_ANSWERS_WITHIN)
        self._connection = connection
        self._answers = connection.makefile("rb")
        self._lock = threading.Lock()
        try:
            self.pid = int(self.ask(do="hello")["pid"])
        except BaseException:
            self._close()
            raise

    @classmethod
    def start(cls, *, on_disk: bool = False) -> "Control":
        """Of a supervisor of one's own, whose folder is in memory if there is room."""
        folder = Path(tempfile.mkdtemp(prefix="hector-servers-", dir=None if on_disk else _memory()))
        # The servers' accounts must find their folders in it, which are closed to everybody else.
        folder.chmod(0o711)
        ours, theirs = socket.socketpair()
        with theirs, (folder / "log").open("wb") as log:
            # It goes on in a child of its own, and this one ends.
            subprocess.run(
                [sys.executable, "-m", "tests.servers.supervisor", str(folder), str(theirs.fileno())],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                check=False,
            )
        try:
            return cls(ours, folder)
        except StartError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @classmethod
    def join(cls, notice: Path) -> "Control":
        """Of the supervisor that all have who name the same file."""
        with notice.open("a+") as file:
            # Held until there is one, so that two that come at once do not start two. Freed by closing.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if folder := file.read():
                # It may have ended since, with the last who had a connection.
                with suppress(OSError, StartError):
                    return cls._connect(Path(folder))
            control = cls.start()
            file.truncate(0)
            file.write(str(control.folder))
            return control

    @classmethod
    def _connect(cls, folder: Path) -> "Control":
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(os.fspath(folder / MEETING_POINT))
        except OSError:
            connection.close()
            raise
        return cls(connection, folder)

    def ask(self, **request: Any) -> Any:
        """Raises `StartError` with what the supervisor says."""
        with self._lock:
            try:
                self._connection.sendall(json.dumps(request).encode() + b"\n")
                line = self._answers.readline()
            except ConnectionError:
                line = b""
        if not line:
            raise StartError(f"the supervisor of the servers is gone; its log: {self._log()}")
        answer = json.loads(line)
        if "error" in answer:
            raise StartError(answer["error"])
        return answer["ok"]

    def _log(self) -> str:
        with suppress(OSError):
            return (self.folder / "log").read_text()[-2000:]
        return "gone with it"

    def leave(self) -> None:
        """Returns when the servers are gone if nobody else uses them."""
        with self._lock, suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            self._answers.read()
        self._close()

    def _close(self) -> None:
        self._answers.close()
        self._connection.close()
