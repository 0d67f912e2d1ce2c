"""Network namespaces of Linux: each has interfaces, addresses and ports of its own."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

_CLONE_NEWNET = 0x4000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)


class NetworkError(Exception):
    """This system cannot make networks; says why."""


class Namespace:
    """It has no name, and is gone with the last who has it open or runs in it, whatever became of them.

    Raises `PermissionError` where this user may not make one.
    """

    def __init__(self) -> None:
        # In a thread of its own, which ends: this one stays where it is.
        with ThreadPoolExecutor(1) as elsewhere:
            self._descriptor = elsewhere.submit(_make).result()
        try:
            self.ip("link set dev lo up")
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> str:
        """By which other processes know it, for as long as it is not closed."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def command(self, *command: str) -> Sequence[str]:
        """The same, inside."""
        return "nsenter", f"--net={self.path}", "--", *command

    def ip(self, *commands: str) -> None:
        """Commands of iproute2's `ip`, in this order; raises `NetworkError` if one fails."""
        if not shutil.which("ip"):
            raise NetworkError(
                "these tests need ip, and it is not installed: `make setup` as root installs it,"
                " or type: sudo apt-get install iproute2"
            )
        done = subprocess.run(
            self.command("ip", "-batch", "-"),
            input="\n".join(commands),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NetworkError(f"ip failed: {done.stderr.strip()}; it was told:\n" + "\n".join(commands))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets that this thread makes meanwhile, and processes that it starts, are inside.

        They stay there, and what was made before stays where it was.
        """
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call(_LIBC.setns(self._descriptor, _CLONE_NEWNET))
            try:
                yield
            finally:
                _call(_LIBC.setns(outside, _CLONE_NEWNET))
        finally:
            os.close(outside)

    def close(self) -> None:
        os.close(self._descriptor)


def _make() -> int:
    _call(_LIBC.unshare(_CLONE_NEWNET))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _call(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
