"""`hector serve` on a machine."""

import asyncio
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

import pytest

from tests.machines.network import Machine
from tests.servers import Database

HTTP_PORT = 8091
_LEASE_TTL = 3.0
"""Seconds."""
_STATEMENT_TIMEOUT = 8
"""Seconds. The other limits of a transaction follow from it: an idle one is ended after 3, in place of 10."""
_READY_WITHIN = 30.0
"""Seconds; on a busy machine."""
_STORE = "kept"
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


def configuration(name: str, db: Database, models: Mapping[str, str]) -> Mapping[str, Any]:
    """`models`: of each agent, the URL of the one that answers."""
    return {
        "server": {"host": "0.0.0.0", "replica_name": name},
        "turns": {"lease_ttl": _LEASE_TTL},
        "session_stores": {
            _STORE: {"backend": "sql", "sql": db.section(statement_timeout=_STATEMENT_TIMEOUT)}
        },
        "llms": {
            agent: {"type": "openai", "model": "gpt-4o", "host": url, "api_key": "any"}
            for agent, url in models.items()
        },
        "agents": {agent: {"llm": agent, "session_store": _STORE} for agent in models},
    }


class Server:
    """One process of `hector serve`, which has its machine to itself."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self.machine = machine
        self.name = machine.name
        self.url = f"http://{machine.address('front')}:{HTTP_PORT}"
        self._process = process
        self._log: list[str] = []
        self._log_ended = False
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read_log())

    @classmethod
    async def start(cls, machine: Machine, db: Database, models: Mapping[str, str]) -> Self:
        """Returns when it is ready. Killed with this process, whatever becomes of that."""
        config = machine.folder / "config.yaml"
        config.write_text(json.dumps(configuration(machine.name, db, models), indent=1))
        with_us = _ENDS_WITH_US if shutil.which("setpriv") else ()
        ours = {key: value for key, value in os.environ.items() if not key.startswith(("HECTOR_", "OPENAI_"))}
        process = await asyncio.create_subprocess_exec(
            *machine.namespace.command(*with_us, sys.executable, "-m", "hector", "serve"),
            cwd=machine.folder,
            env={**ours, "HOME": str(machine.folder), "NO_PROXY": "*"},
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        self = cls(machine, process)
        try:
            async with asyncio.timeout(_READY_WITHIN):
                assert process.stdout
                line = await process.stdout.readline()
        except BaseException:
            await self.kill()
            raise
        if not line.startswith(b"ready: "):
            await self.kill()
            pytest.fail(f"it did not start on {machine.name}: {self.log}")
        return self

    async def logged(self, text: str) -> str:
        """The first line that holds the text, as soon as there is one."""
        async with self._news:
            while True:
                for line in self._log:
                    if text in line:
                        return line
                assert not self._log_ended, f"it ended without a word of {text!r}"
                await self._news.wait()

    @property
    def log(self) -> str:
        return "".join(self._log)

    async def kill(self) -> None:
        """Returns when it is gone; what it had open is closed by its machine."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        assert self._process.stdout
        await asyncio.gather(self._process.stdout.read(), self._process.wait(), self._reading)

    async def _read_log(self) -> None:
        assert self._process.stderr
        async for line in self._process.stderr:
            async with self._news:
                self._log.append(line.decode())
                self._news.notify_all()
        async with self._news:
            self._log_ended = True
            self._news.notify_all()
