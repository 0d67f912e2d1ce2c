"""The real command in processes of its own, and beside it a provider that knows only what it is sent."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from tests.fakes.openai_server import FakeOpenAI

HECTOR = Path(sys.executable).with_name("hector")
READY_TIMEOUT = 30
"""Seconds, on a machine that is busy with other tests; it is no measure."""

CONFIG = """\
session_stores:
  main-db:
    backend: sql
    sql:
      driver: sqlite
      database: ./data/sessions.db

llms:
  recalls: {type: scripted, model: recall}

agents:
  assistant:
    llm: recalls
    session_store: main-db
"""
"""A model in the process: without a provider's libraries a command is three times as fast."""


@dataclass(frozen=True, slots=True)
class Ended:
    status: int
    out: str
    err: str


class Run(Protocol):
    async def __call__(self, *arguments: str, stdin: str = "") -> Ended: ...


class Start(Protocol):
    async def __call__(self, *arguments: str) -> Process: ...


@dataclass(frozen=True, slots=True)
class Server:
    process: Process
    url: str
    lines: list[str]
    """What it announced."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where commands run, with a configuration."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("HECTOR_", "OPENAI_"))}


@pytest.fixture
async def fake(folder: Path, environ: dict[str, str]) -> AsyncIterator[FakeOpenAI]:
    """A test that asks for it has its agent answered by it."""
    (folder / "config.yaml").write_text(CONFIG.replace("llm: recalls", "llm: gpt-4o"))
    async with FakeOpenAI() as fake:
        environ |= {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": fake.url, "NO_PROXY": "*"}
        yield fake


@pytest.fixture
async def start(folder: Path, environ: dict[str, str]) -> AsyncIterator[Start]:
    """Starts a command, which is killed at the end of the test if it is still there."""
    started: list[Process] = []

    async def start(*arguments: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            HECTOR, *arguments, cwd=folder, env=environ, stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.fixture
def run(start: Start) -> Run:
    """Runs a command to its end."""

    async def run(*arguments: str, stdin: str = "") -> Ended:
        process = await start(*arguments)
        out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    return run


@pytest.fixture
def serve(start: Start) -> Callable[..., Awaitable[Server]]:
    """Starts a server on a free port, and returns when it is ready."""

    async def serve(*options: str) -> Server:
        process = await start("serve", "--port", "0", *options)
        return await ready(process)

    return serve


async def ready(process: Process) -> Server:
    assert process.stdout
    async with asyncio.timeout(READY_TIMEOUT):
        line = (await process.stdout.readline()).decode()
        if not line:
            assert process.stderr
            pytest.fail(f"it did not start: {(await process.stderr.read()).decode()}")
    word, url, *_ = line.split()
    assert word == "ready:"
    return Server(process, url, [line])
