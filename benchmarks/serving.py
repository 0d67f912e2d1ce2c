"""`hector serve` as a process, and what it costs."""

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

HECTOR = Path(sys.executable).with_name("hector")


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    pid: int
    ready_after: float
    """Seconds from the start of the process to its ready line."""

    def cpu(self) -> float:
        """Seconds of CPU so far, of all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Resident megabytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@asynccontextmanager
async def hector_serve(config: Path, environ: Mapping[str, str]) -> AsyncIterator[Server]:
    command = [str(HECTOR), "serve", "--config", str(config), "--port", "0"]
    async with running(command, r"^ready.*?(http://\S+)", environ) as server:
        yield server


@asynccontextmanager
async def running(command: list[str], ready: str, environ: Mapping[str, str]) -> AsyncIterator[Server]:
    """A process that prints its URL when it is ready."""
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **environ},
    )
    assert process.stdout
    try:
        while line := (await process.stdout.readline()).decode():
            if found := re.search(ready, line):
                yield Server(found[1].rstrip("/,"), process.pid, time.perf_counter() - started)
                break
        else:
            raise RuntimeError(f"{command[0]} ended before it was ready")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()
