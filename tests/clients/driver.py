"""A client at work: a program of its own, written with one of the published A2A clients."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeAlias

DRIVERS = Path(__file__).with_name("drivers")
CLIENTS = Path(sys.prefix) / "clients"
"""Where the set-up puts those that have packages of their own."""

Seen: TypeAlias = dict[str, Any]
"""What a client saw, in the words of drivers/lines.py."""


@dataclass(frozen=True, slots=True)
class Published:
    """A client as it is published."""

    name: str
    command: Sequence[str | Path]

    @property
    def lacking(self) -> Path | None:
        """What the set-up should have made."""
        return next((path for path in self.command if isinstance(path, Path) and not path.exists()), None)


def _python(name: str, interpreter: Path) -> Published:
    return Published(name, (interpreter, DRIVERS / f"{name.replace('-', '_').replace('.', '_')}.py"))


def _npm(name: str) -> Published:
    driver = DRIVERS / f"{name.replace('-', '_').replace('.', '_')}.mjs"
    return Published(name, (CLIENTS / "node", driver, CLIENTS / name))


PYTHON_NEWEST = _python("python-newest", Path(sys.executable))
PYTHON_0_3 = _python("python-0.3", CLIENTS / "python-0.3/bin/python")
NPM_NEWEST = _npm("npm-newest")
NPM_0_3 = _npm("npm-0.3")
ADK = _python("adk", CLIENTS / "adk/bin/python")


class ClientError(Exception):
    """A client raised what it is made with."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name, self.text = name, text


@dataclass(slots=True, eq=False)
class Running:
    """An order that is being carried out."""

    _seen: asyncio.Queue[Seen]

    async def next(self) -> Seen | None:
        """None at the end. Raises `ClientError`."""
        match await self._seen.get():
            case {"kind": "end"}:
                return None
            case {"kind": "error", "name": name, "text": text}:
                raise ClientError(name, text)
            case seen:
                return seen

    async def rest(self) -> list[Seen]:
        """Raises `ClientError`."""
        found = []
        while seen := await self.next():
            found.append(seen)
        return found

    async def breaks(self) -> ClientError:
        """What the client raises, and whatever it saw before."""
        try:
            seen = await self.rest()
        except ClientError as error:
            return error
        raise AssertionError(f"it ended in good order, and last saw {seen[-1:]}")


@dataclass(slots=True, eq=False)
class Driver:
    """One client, connected to one agent over one transport, for as many orders as there are."""

    published: Published
    transport: str
    _process: Process
    _numbers: Any = field(default_factory=lambda: count(1))
    _orders: dict[int, asyncio.Queue[Seen]] = field(default_factory=dict)
    _reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, published: Published, url: str, transport: str, grpc_address: str) -> Self:
        """`url` is the agent's. Returns when it has read the agent's card."""
        process = await asyncio.create_subprocess_exec(
            *published.command,
            *(url, transport, grpc_address),
            env={**os.environ, "NO_PROXY": "*"},
            stdin=PIPE,
            stdout=PIPE,
            limit=1 << 24,
        )
        driver = cls(published, transport, process)
        assert process.stdout
        if not (line := await process.stdout.readline()):
            raise AssertionError(f"{published.name} ended before it was ready; its words are above")
        assert json.loads(line) == {"kind": "ready"}
        driver._reading = asyncio.create_task(driver._read())
        return driver

    def begin(self, do: str, **order: Any) -> Running:
        number = next(self._numbers)
        self._orders[number] = queue = asyncio.Queue[Seen]()
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"number": number, "do": do, **order}).encode() + b"\n")
        return Running(queue)

    async def do(self, do: str, **order: Any) -> Seen:
        """An order with one answer. Raises `ClientError`."""
        (seen,) = await self.begin(do, **order).rest()
        return seen

    async def close(self) -> None:
        assert self._process.stdin
        assert self._reading
        self._process.stdin.close()
        await self._reading
        await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stdout
        while line := await self._process.stdout.readline():
            seen = json.loads(line)
            self._orders[seen.pop("number")].put_nowait(seen)
        for queue in self._orders.values():
            queue.put_nowait({"kind": "error", "name": "Ended", "text": "the client's process is gone"})
