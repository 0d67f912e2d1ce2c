"""Starts that are killed: a process that forks one for each line of its input, which says when it dies."""

import asyncio
import base64
import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from hector.storage.migrate import HECTOR
from tests.migrations.history import LATER
from tests.migrations.starts import start
from tests.servers import Database

_CHANGES = ("ALTER", "CREATE", "DELETE", "DROP", "INSERT", "UPDATE")
_HISTORIES = {"shipped": HECTOR, "later": LATER}


class DyingStarts:
    """Starts on one database, in processes of their own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def die(self, change: int, history: str = "shipped") -> bool:
        """Kill a start just before its n-th change or commit; False if it came to its end before."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{change} {history}\n".encode())
        status = await self._process.stdout.readline()
        ended = os.waitstatus_to_exitcode(int(status))
        assert ended in (0, -signal.SIGKILL), ended
        return ended != 0


@contextlib.asynccontextmanager
async def dying_starts(db: Database) -> AsyncIterator[DyingStarts]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.migrations.dying",
        base64.b64encode(pickle.dumps(db)).decode(),
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield DyingStarts(process)
    finally:
        assert process.stdin
        process.stdin.close()
        await process.wait()


def _serve(db: Database) -> None:
    left = 0

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def count_changes(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.split(maxsplit=1)[0].upper() in _CHANGES:
            count()

    event.listen(Engine, "before_cursor_execute", count_changes)
    event.listen(Engine, "commit", count)
    for line in sys.stdin:
        change, history = line.split()
        left = int(change)
        child = os.fork()
        if child == 0:
            asyncio.run(start(db, _HISTORIES[history]))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)


if __name__ == "__main__":
    _serve(pickle.loads(base64.b64decode(sys.argv[1])))
