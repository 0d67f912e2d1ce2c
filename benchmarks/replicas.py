"""What several replicas on one store cost: handing a session over, contention, deaths, turns a second."""

import asyncio
import json
import os
import random
import signal
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import httpx

from benchmarks.http_load import Load, load
from benchmarks.serving import Server, hector_serve
from benchmarks.table import median, p99, show
from tests.fakes.openai_server import Behaviour, FakeOpenAI
from tests.servers import running

_Row: TypeAlias = tuple[object, ...]

_PAIRS = 20
_DEATHS = 3
_CONNECTIONS = 48
_SECONDS = 4.0
_CONTENDERS = 8
_WAITS = 1.0
"""Seconds for which the second of two messages waits: looking for its turn has slowed down by then."""


async def main() -> None:
    hand_overs: list[_Row] = []
    contended: list[_Row] = []
    deaths: list[_Row] = []
    rates: list[_Row] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR"))))
        for name in ("sqlite", "postgres", "mysql"):
            async with _database(name, folder) as sql:
                hand_overs += await _hand_overs(name, folder, sql)
                contended += await _contended(name, folder, sql)
                deaths += await _deaths(name, folder, sql)
                rates.append((name, *await _rates(name, folder, sql)))
    show(
        "from one answer to the next in a session, model call included",
        ("database", "the next message waits at", "p50 ms", "p99 ms"),
        hand_overs,
    )
    show(
        f"{_CONTENDERS} clients, each with one message at a time; the model answers at once",
        ("database", "they share", "turns/s", "p50 ms", "p99 ms"),
        contended,
    )
    show(
        "a turn goes on elsewhere (lease_ttl 15 s)",
        ("database", "what ends the replica", "until another asks the model again, s, each time"),
        deaths,
    )
    show(
        f"requests/s, {_CONNECTIONS} connections, {os.cpu_count()} cores for all",
        ("database", "1 replica", "3 replicas"),
        rates,
    )


@asynccontextmanager
async def _database(name: str, folder: Path) -> AsyncIterator[Mapping[str, Any]]:
    if name == "sqlite":
        yield {"driver": "sqlite", "database": str(folder / "sessions.db")}
        return
    driver: Any = name
    async with running(driver, durable=True) as servers:
        db = await servers[driver].create_database()
        yield db.section(ssl_mode="disable")


@asynccontextmanager
async def _replicas(
    count: int, folder: Path, sql: Mapping[str, Any], model: str = ""
) -> AsyncIterator[list[Server]]:
    llm = {"type": "openai", "model": "m", "host": model, "api_key": "x"} if model else {"type": "scripted"}
    config = folder / f"{uuid.uuid4().hex}.yaml"
    config.write_text(
        json.dumps(
            {
                "server": {"drain_timeout": 0},
                "session_stores": {"main": {"backend": "sql", "sql": sql}},
                "llms": {"m": llm},
                "agents": {"a": {"llm": "m", "session_store": "main"}},
                "logging": {"level": "error"},
            }
        )
    )
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(hector_serve(config, {})) for _ in range(count)]


async def _send(http: httpx.AsyncClient, server: Server, session: str) -> float:
    """When it was answered."""
    said = {
        "messageId": uuid.uuid4().hex,
        "contextId": session,
        "role": "ROLE_USER",
        "parts": [{"text": "x"}],
    }
    answer = await http.post(f"{server.url}/v1/agents/a/message:send", json={"message": said})
    answer.raise_for_status()
    return time.perf_counter()


async def _hand_overs(name: str, folder: Path, sql: Mapping[str, Any]) -> list[_Row]:
    rows: list[_Row] = []
    async with (
        FakeOpenAI() as model,
        _replicas(2, folder, sql, model.url) as (one, two),
        httpx.AsyncClient(timeout=60) as http,
    ):
        for where, second in (("the same replica", one), ("another replica", two)):
            samples = []
            for number in range(_PAIRS):
                session = f"{where}-{number % 5}"
                model.behave(Behaviour(hold=True))
                held = model.held
                first = asyncio.create_task(_send(http, one, session))
                await model.until(lambda held=held: model.held > held)  # type: ignore[misc]
                last = asyncio.create_task(_send(http, second, session))
                await asyncio.sleep(_WAITS * random.uniform(0.5, 1.5))  # noqa: S311  # not in step with the polling
                model.release()
                samples.append((-await first + await last) * 1000)
            rows.append((name, where, median(samples), p99(samples)))
    return rows


async def _contended(name: str, folder: Path, sql: Mapping[str, Any]) -> list[_Row]:
    rows: list[_Row] = []
    for what, count, shared in (
        ("one replica, each in a session of its own", 1, False),
        ("one replica and one session", 1, True),
        ("two replicas, each in a session of its own", 2, False),
        ("two replicas and one session", 2, True),
    ):
        async with _replicas(count, folder, sql) as servers:
            loads = await asyncio.gather(
                *(
                    _load(server, _CONTENDERS // count, what if shared else f"{what}-{number}", shared=shared)
                    for number, server in enumerate(servers)
                )
            )
        latencies = [each for done in loads for each in done.latencies]
        turns = sum(done.requests / done.seconds for done in loads)
        rows.append((name, what, turns, median(latencies), p99(latencies)))
    return rows


async def _deaths(name: str, folder: Path, sql: Mapping[str, Any]) -> list[_Row]:
    rows: list[_Row] = []
    for what, number in (("SIGTERM", signal.SIGTERM), ("SIGKILL", signal.SIGKILL)):
        samples = []
        for death in range(_DEATHS):
            async with (
                FakeOpenAI() as model,
                _replicas(1, folder, sql, model.url) as (other,),
                _replicas(1, folder, sql, model.url) as (dying,),
                httpx.AsyncClient(timeout=60) as http,
            ):
                await asyncio.sleep(6)  # as they stand in production: each has beaten and seen the other
                model.behave(Behaviour(hold=True))
                lost = asyncio.create_task(_send(http, dying, f"{what}-{death}"))
                await model.until(lambda model=model: model.held == 1)  # type: ignore[misc]
                started = time.perf_counter()
                os.kill(dying.pid, number)
                await model.until(lambda model=model: len(model.requests) == 2)  # type: ignore[misc]
                samples.append(time.perf_counter() - started)
                model.release()
                await asyncio.gather(lost, return_exceptions=True)
                await _send(http, other, f"{what}-{death}")  # so that nothing is left for the next
        rows.append((name, what, " ".join(f"{sample:.2f}" for sample in samples)))
    return rows


async def _rates(name: str, folder: Path, sql: Mapping[str, Any]) -> list[float]:
    rates = []
    for count in (1, 3):
        async with _replicas(count, folder, sql) as servers:
            loads = [_load(server, _CONNECTIONS // count, f"{name}-{server.pid}") for server in servers]
            rates.append(sum(done.requests / done.seconds for done in await asyncio.gather(*loads)))
    return rates


async def _load(server: Server, connections: int, sessions: str, *, shared: bool = False) -> Load:
    """Each connection in a session of its own, or all in one."""

    def body(connection: int) -> object:
        said = [{"text": "How much is that?"}]
        session = sessions if shared else f"{sessions}-{connection}"
        return {"message": {"context_id": session, "role": 1, "content": said}}

    return await load(f"{server.url}/v1/agents/a/message:send", connections, body, seconds=_SECONDS)
