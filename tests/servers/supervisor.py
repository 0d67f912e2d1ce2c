"""The process that owns the servers of a run: `python -m tests.servers.supervisor FOLDER CONNECTION`.

It is a process of its own because nobody else is there from the first test that needs a server to the last:
a worker of pytest-xdist may end, or crash, while others go on, and the controller runs no fixture. It lives
as long as somebody holds a connection to it. The system closes connections, whatever becomes of who held
them, so nothing is left running, no folder is left behind, and it need not know who runs the tests, or how.

A line of JSON is asked, a line is answered.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.servers.certificates import make_certificates
from tests.servers.control import MEETING_POINT
from tests.servers.instance import Instance, remove
from tests.servers.mariadb_instance import MariaDbInstance
from tests.servers.options import ADMIN, Options
from tests.servers.pgbouncer_instance import PgBouncerInstance
from tests.servers.postgres_instance import PostgresInstance
from tests.servers.process import HOST, StartError


class Supervisor:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._certificates = make_certificates(folder)
        self._instances: dict[str, Instance] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._clients = 0
        self._deserted = asyncio.Event()
        self._gone = asyncio.Event()

    async def run(self, first: socket.socket) -> None:
        listener = await asyncio.start_unix_server(self._serve, self._folder / MEETING_POINT)
        # A task, and kept: the first client came along with us.
        serving = asyncio.create_task(self._serve(*await asyncio.open_connection(sock=first)))
        await self._deserted.wait()
        # Who comes now finds nobody, and starts a supervisor of their own.
        listener.close()
        await asyncio.gather(*(instance.end(instance.drop_signal) for instance in self._instances.values()))
        remove(self._folder)
        self._gone.set()
        await serving

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._deserted.is_set():
            writer.close()
            return
        self._clients += 1
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(json.loads(line))).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass  # it was killed, which is the same as if it had left
        finally:
            self._clients -= 1
            if not self._clients:
                self._deserted.set()
                # Who leaves last sees the connection end when the servers are gone.
                await self._gone.wait()
            writer.close()

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": await self._do(**request)}
        except (StartError, OSError) as error:
            return {"error": str(error)}

    async def _do(self, do: str, name: str = "", **more: Any) -> Any:
        if do == "hello":
            return {"pid": os.getpid(), "folder": str(self._folder)}
        async with self._locks.setdefault(name, asyncio.Lock()):
            if do == "start":
                return await self._start(name, **more)
            instance = self._instances[name]
            match do:
                case "stop":
                    await instance.end(instance.stop_signal)
                case "kill":
                    await instance.end(signal.SIGKILL)
                case "freeze":
                    instance.process.freeze()
                case "thaw":
                    instance.process.thaw()
                case "remove":
                    del self._instances[name]
                    await instance.end(instance.drop_signal)
                    remove(instance.folder)
                case other:
                    raise NotImplementedError(other)
        return None

    async def _start(self, name: str, kind: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
        instance = self._instances.get(name)
        if instance is None:
            instance = self._make(name, kind, Options(**options or {}))
            try:
                await instance.start()
            except BaseException:
                remove(instance.folder)
                raise
            self._instances[name] = instance
        else:
            await instance.start()
        server = instance if kind != "pgbouncer" else self._instances["postgres"]
        return {
            "host": HOST,
            "port": instance.port,
            "socket": str(server.socket),
            "server_port": server.port,
            "admin_user": ADMIN,
            "admin_password": server.admin_password,
            "tls": {name: str(path) for name, path in asdict(self._certificates.client).items()},
            "log": str(instance.log),
            "pid": instance.process.pid,
        }

    def _make(self, name: str, kind: str, options: Options) -> Instance:
        folder = self._folder / name
        match kind:
            case "postgres":
                return PostgresInstance(folder, self._certificates, options)
            case "mysql":
                return MariaDbInstance(folder, self._certificates, options)
            case "pgbouncer":
                server = self._instances["postgres"]
                assert isinstance(server, PostgresInstance)
                return PgBouncerInstance(folder, self._certificates, server)
            case other:
                raise NotImplementedError(other)


def main(folder: Path, connection: int) -> None:
    first = socket.socket(fileno=connection)
    # No child of who started it: that one may end first, and has nobody to wait for.
    if os.fork():
        os._exit(0)
    # Not ended by Ctrl-C in the terminal: who holds a connection is, and that is enough.
    os.setsid()
    asyncio.run(Supervisor(folder).run(first))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
