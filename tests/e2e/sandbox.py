"""Runs a shell script of the documentation as it is written, where it can do no harm.

    python -m tests.e2e.sandbox FOLDER < SCRIPT

In namespaces of its own (see `isolation` in test_documented.py) its ports are free, and `pkill hector` finds
no hector but its own. Beside it runs the fake provider, which answers for `gpt-4o`.
"""

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

from tests.fakes.openai_server import FakeOpenAI

TOOLS = ("curl", "pkill", "sqlite3", "uuidgen")
STAND_INS = Path(__file__).with_name("stand_ins.py")
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def raise_loopback() -> None:
    """As `ip link set lo up`, where there may be no `ip`: in a new network namespace it is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def own_processes(folder: Path, name: str) -> list[int]:
    """Processes of that name that were started in that folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            here = entry.name.isdecimal() and (entry / "cwd").resolve() == folder
            if here and name in (entry / "comm").read_text():
                found.append(int(entry.name))
    return found


def provide_tools(folder: Path, names: list[str]) -> None:
    """Stand-ins for programs of other packages."""
    for name in names:
        tool = folder / name
        tool.write_text(f"#!{sys.executable}\n{STAND_INS.read_text()}")
        tool.chmod(0o755)


async def main(folder: Path) -> int:
    isolated = os.getpid() == 1
    if isolated:
        raise_loopback()
    tools = folder / ".tools"
    tools.mkdir()
    # Outside a process namespace the real `pkill` would end others' servers.
    missing = [name for name in TOOLS if not shutil.which(name) or (name == "pkill" and not isolated)]
    provide_tools(tools, missing)
    async with FakeOpenAI() as fake:
        environ = os.environ | {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": fake.url,
            "NO_PROXY": "*",
        }
        bash = await asyncio.create_subprocess_exec("bash", "-c", sys.stdin.read(), cwd=folder, env=environ)
        try:
            return await bash.wait()
        finally:
            for process in own_processes(folder, "hector"):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]).resolve())))
