"""Processes of servers: started under an account that they accept, ready when they say so, gone with us."""

import asyncio
import contextlib
import itertools
import os
import pwd
import random
import shutil
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
# On Linux the whole net is there. The second is a host that the server's certificate does not name.
LISTEN_ON = (HOST, "127.0.0.2") if sys.platform == "linux" else (HOST,)
ANYWHERE = ("0.0.0.0",)
_READY_WITHIN = 40.0
"""Seconds, on a machine that is busy with other tests; it is no measure."""


class StartError(Exception):
    """A server cannot be started; says why."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who a server runs as: these servers refuse to run as root."""

    uid: int
    gid: int

    def give(self, path: Path) -> None:
        os.chown(path, self.uid, self.gid)

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Ends with its parent where Linux can do that, whatever becomes of the parent."""
        found = shutil.which("setpriv")
        if os.getuid() != self.uid:
            if not found:
                raise StartError(
                    "root cannot start database servers without setpriv; run the tests as a user"
                )
            change = [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
            return [found, *change, "--pdeathsig", "KILL", "--", *arguments]
        return [found, "--pdeathsig", "KILL", "--", *arguments] if found else list(arguments)


def choose_account(*names: str) -> Account:
    """Oneself, unless one is root: then the first of these that there is, or nobody."""
    if os.getuid() != 0:
        return Account(os.getuid(), os.getgid())
    for name in names:
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return Account(found.pw_uid, found.pw_gid)
    found = pwd.getpwnam("nobody")
    return Account(found.pw_uid, found.pw_gid)


def find_program(name: str, package: str, *folders: Path) -> Path:
    """Raises `StartError` with what to install."""
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = shutil.which(name, path=path)
    if not found:
        raise StartError(
            f"these tests need {name}, and it is not installed: `make setup` as root installs it,"
            f" or type: sudo apt-get install {package}"
        )
    return Path(found)


def free_port() -> int:
    """None that the system may give to an outgoing connection, so that it stays free for a restart.

    The ports before it and after it are free, too, and no other call gives them away: Hector takes two.
    """
    for port in random.sample(range(20_001, 32_000, 4), 100):
        with contextlib.ExitStack() as sockets, contextlib.suppress(OSError):
            for host, near in itertools.product(LISTEN_ON, (port - 1, port, port + 1)):
                sockets.enter_context(socket.socket()).bind((host, near))
            return port
    raise StartError("found no free port between 20000 and 32000")


async def run_to_end(account: Account, arguments: Sequence[str], folder: Path) -> None:
    process = await _spawn(account, arguments, folder)
    said, _ = await process.communicate()
    if process.returncode != 0:
        text = said.decode(errors="replace")[-2000:]
        raise StartError(f"{Path(arguments[0]).name} ended with {process.returncode}:\n{text}")


class ServerProcess:
    """What it and its children say goes to a file; it has ended when the last of them has."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process = process
        self._log = log
        self._said = asyncio.Event()
        self._early = b""
        self._drain = asyncio.create_task(self._keep_log())
        self._frozen: list[int] = []

    @classmethod
    async def start(
        cls, account: Account, arguments: Sequence[str], *, ready: bytes, folder: Path, log: Path
    ) -> "ServerProcess":
        """`ready` is what it says when it serves. Raises `StartError` if it does not come to that."""
        self = cls(await _spawn(account, arguments, folder), log)
        try:
            async with asyncio.timeout(_READY_WITHIN):
                while ready not in self._early and not self._drain.done():
                    self._said.clear()
                    await self._said.wait()
        except TimeoutError:
            await self.end(signal.SIGKILL)
            raise StartError(f"{Path(arguments[0]).name} was not ready in time; see {log}") from None
        if ready not in self._early or b"Address already in use" in self._early:
            await self.end(signal.SIGKILL)
            text = self._early.decode(errors="replace")[-2000:]
            raise StartError(f"{Path(arguments[0]).name} did not start:\n{text}")
        self._early = b""
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    async def end(self, number: signal.Signals) -> None:
        """Returns when the process and its children are gone."""
        self.thaw()
        _signal(self.pid, number)
        await self._process.wait()
        await self._drain

    def freeze(self) -> None:
        """It and its children stop where they are, as on a machine that hangs. Returns when they have."""
        # The parent first, so that it makes no more children.
        _signal(self.pid, signal.SIGSTOP)
        self._frozen = [self.pid, *children(self.pid)]
        for pid in self._frozen:
            _signal(pid, signal.SIGSTOP)
        # The signal is on its way, and of others' children one is told nothing.
        while not all(map(_has_stopped, self._frozen)):
            os.sched_yield()

    def thaw(self) -> None:
        for pid in self._frozen:
            _signal(pid, signal.SIGCONT)
        self._frozen = []

    async def _keep_log(self) -> None:
        assert self._process.stdout
        with self._log.open("ab", buffering=0) as log:
            # Not by lines: a server may quote a statement of any length.
            while chunk := await self._process.stdout.read(65536):
                log.write(chunk)
                self._early = (self._early + chunk)[-65536:]
                self._said.set()
        self._said.set()


async def _spawn(account: Account, arguments: Sequence[str], folder: Path) -> Process:
    return await asyncio.create_subprocess_exec(
        *account.command(arguments),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        cwd=folder,
        # Nothing of the caller's: PGDATA, MYSQL_HOME and the like would be obeyed.
        # A folder of its own for temporary files: MariaDB deletes those of others as it starts.
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "HOME": str(folder),
            "TMPDIR": str(folder),
        },
        start_new_session=True,
    )


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def children(pid: int) -> list[int]:
    """Linux's alone; elsewhere none are found."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        _, parent = _state_and_parent(process)
        if parent == pid:
            found.append(int(process.name))
    return found


def _has_stopped(pid: int) -> bool:
    """True also for one that is gone."""
    state, _ = _state_and_parent(Path(f"/proc/{pid}"))
    return state in ("T", "Z", "")


def _state_and_parent(process: Path) -> tuple[str, int]:
    try:
        # The name before them, in brackets, may hold anything.
        state, parent, *_ = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return state, int(parent)
