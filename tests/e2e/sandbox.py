"""Runs a shell script of the documentation as it is written, where it can do no harm.

`python -m tests.e2e.sandbox` reads its task from standard input, as shell.py writes it. In namespaces of its
own its ports are free, and `pkill hector` finds no hector but its own. Beside it runs the fake provider,
which answers for `gpt-4o`. Database servers run outside; their sockets lead there.
"""

import asyncio
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

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


@asynccontextmanager
async def leading_to(path: str, port: int) -> AsyncIterator[None]:
    """Whoever connects to the port of localhost is connected to the Unix socket."""
    connections: set[asyncio.Task[None]] = set()

    def connect(reader: StreamReader, writer: StreamWriter) -> None:
        connection = asyncio.create_task(_connect(path, reader, writer))
        connections.add(connection)
        connection.add_done_callback(connections.discard)

    server = await asyncio.start_server(connect, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _connect(path: str, reader: StreamReader, writer: StreamWriter) -> None:
    there, here = await asyncio.open_unix_connection(path)
    await asyncio.gather(_pass_on(reader, here), _pass_on(there, writer))


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def main(task: dict[str, Any]) -> int:
    folder = Path(task["folder"]).resolve()
    isolated = os.getpid() == 1
    if isolated:
        raise_loopback()
    tools = folder / ".tools"
    tools.mkdir()
    # Outside a process namespace the real `pkill` would end others' servers.
    missing = [name for name in TOOLS if not shutil.which(name) or (name == "pkill" and not isolated)]
    provide_tools(tools, missing)
    typed = tools / "typed"
    typed.write_text(task["typed"])
    async with AsyncExitStack() as beside:
        fake = await beside.enter_async_context(FakeOpenAI())
        for port, path in task["servers"].items():
            await beside.enter_async_context(leading_to(path, int(port)))
        environ = os.environ | {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": fake.url,
            "NO_PROXY": "*",
        }
        with typed.open() as keyboard:
            bash = await asyncio.create_subprocess_exec(
                "bash",
                "-c",
                task["script"],
                cwd=folder,
                env=environ,
                stdin=keyboard,
                # Without a terminal, where a program that asks for a password would read it.
                start_new_session=True,
            )
        try:
            return await bash.wait()
        finally:
            for process in own_processes(folder, "hector"):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(json.load(sys.stdin))))
