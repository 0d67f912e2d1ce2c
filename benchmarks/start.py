"""How long one waits for a first sign of life, and the memory after it."""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.http_load import load
from benchmarks.serving import HECTOR, hector_serve, running
from benchmarks.table import median, show

TIMES = 5

CONFIG = """
session_stores:
  main:
    backend: sql
    sql: {{driver: sqlite, database: {folder}/sessions.db}}
agents:
  assistant: {{llm: gpt-4o, session_store: main}}
logging: {{level: warning}}
"""


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="hector-bench-", dir=os.environ.get("BENCH_DIR")) as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG.format(folder=folder))
        async with running([sys.executable, "-m", "tests.fakes.openai_server"], r"(http://\S+)", {}) as fake:
            environ = {"OPENAI_API_KEY": "sk-bench", "OPENAI_BASE_URL": fake.url.removesuffix("/v1") + "/v1"}
            call = [str(HECTOR), "call", "--config", str(config), "--session=s", "assistant", "Hello"]
            rows: list[tuple[str, object, object]] = [
                ("python -c pass", await _first_byte([sys.executable, "-c", "print()"], environ), ""),
                ("hector --help", await _first_byte([str(HECTOR), "--help"], environ), 0.25),
                ("hector call, first byte", await _first_byte(call, environ), 1.5),
            ]
            ready, memory = [], []
            for _ in range(TIMES):
                async with hector_serve(config, environ) as server:
                    ready.append(server.ready_after)
                    await load(f"{server.url}/v1/agents/assistant/message:send", 1, _body, seconds=0.5)
                    memory.append(server.memory())
            rows.append(("hector serve, ready", median(ready), 1.5))
            show("start, seconds", ("what", "median", "goal"), rows)
            show("memory, MB", ("what", "median", "goal"), [("after the first turns", median(memory), 150)])


async def _first_byte(command: list[str], environ: dict[str, str]) -> float:
    """Seconds from the start of the process to the first byte on its standard output."""
    samples = []
    for _ in range(TIMES):
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, **environ},
        )
        assert process.stdout
        await process.stdout.read(1)
        samples.append(time.perf_counter() - started)
        await process.stdout.read()
        if await process.wait() != 0:
            raise RuntimeError(f"{' '.join(command[:2])} failed")
    return median(samples)


def _body(connection: int) -> object:
    del connection
    return {"message": {"context_id": "s", "role": 1, "content": [{"text": "Hello"}]}}
