"""Turns a second over REST, durable on SQLite, as a share of a bare echo and of the disk."""

import os
import sqlite3
import sys
import tempfile
from pathlib import Path
from uuid import uuid4

from benchmarks.http_load import Load, load
from benchmarks.serving import Server, hector_serve, running
from benchmarks.table import median, p99, show

CONNECTIONS = (1, 16, 64)
SECONDS = 5.0

CONFIG = """
session_stores:
  main:
    backend: sql
    sql: {{driver: sqlite, database: {folder}/sessions.db}}
llms:
  scripted: {{type: scripted}}
  remote: {{type: openai, model: gpt-4o, host: {model}/v1}}
agents:
  scripted: {{llm: scripted, session_store: main}}
  remote: {{llm: remote, session_store: main}}
  memory: {{llm: scripted}}
logging: {{level: warning}}
"""


async def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory(prefix="hector-bench-", dir=os.environ.get("BENCH_DIR")) as folder:
        fake = [sys.executable, "-m", "tests.fakes.openai_server"]
        echo = [sys.executable, "-m", "benchmarks.echo"]
        async with running(fake, r"(http://\S+)", {}) as model, running(echo, r"(http://\S+)", {}) as floor:
            config = Path(folder) / "config.yaml"
            config.write_text(CONFIG.format(folder=folder, model=model.url.removesuffix("/v1")))
            async with hector_serve(config, {}) as server:
                for connections in CONNECTIONS:
                    bare = await _row("bare echo", floor, floor.url + "/", connections)
                    rows.append((*bare, 1.0))
                    for agent in ("memory", "scripted", "remote"):
                        url = f"{server.url}/v1/agents/{agent}/message:send"
                        measured = await _row(agent, server, url, connections)
                        rows.append((*measured, float(measured[2]) / float(bare[2])))
                _check(Path(folder) / "sessions.db")
    header = ("what", "connections", "requests/s", "p50 ms", "p99 ms", "server CPU ms", "share of echo")
    show("serve: message:send, one session a connection", header, rows)


async def _row(
    name: str, server: Server, url: str, connections: int
) -> tuple[str, int, float, float, float, float]:
    await load(url, connections, _body, seconds=1.0)
    before = server.cpu()
    done: Load = await load(url, connections, _body, seconds=SECONDS)
    cpu = (server.cpu() - before) / done.requests * 1000
    rate = done.requests / done.seconds
    return name, connections, rate, median(done.latencies), p99(done.latencies), cpu


def _body(connection: int) -> object:
    # Each message is another: Hector keeps those that it has read, as they never change.
    text = f"How many words does an ordinary question of a user have, and what does {uuid4()} cost?"
    return {"message": {"context_id": f"c{connection}", "role": 1, "content": [{"text": text}]}}


def _check(database: Path) -> None:
    """Speed without durability would be no figure: every turn must be there."""
    connection = sqlite3.connect(database)
    (open_turns,) = connection.execute("SELECT count(*) FROM turns WHERE state <> 'completed'").fetchone()
    connection.close()
    if open_turns:
        raise RuntimeError(f"{open_turns} turns are not completed")
