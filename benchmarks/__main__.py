"""`python -m benchmarks [sqlite] [postgres] [mariadb] [serve] [start] [replicas] [a2a] [resume]`: all of them by default."""

import asyncio
import os
import platform
import sys
import tempfile
import time

import uvloop

from benchmarks import a2a, replicas, resume, serve, servers, sqlite, start

PARTS = {
    "sqlite": sqlite.main,
    "postgres": servers.postgres,
    "mariadb": servers.mariadb,
    "serve": serve.main,
    "start": start.main,
    "replicas": replicas.main,
    "a2a": a2a.main,
    "resume": resume.main,
}


def main() -> None:
    wanted = sys.argv[1:] or list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        sys.exit(f"no benchmark named {', '.join(sorted(unknown))} (known: {', '.join(PARTS)})")
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, uvloop, fdatasync {_fdatasync():.2f} ms"
    )
    for name in wanted:
        # As `hector serve` does; the floors run on it too.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(PARTS[name]())


def _fdatasync(count: int = 50) -> float:
    """Milliseconds for one small write that reaches the disk: the floor of every commit."""
    with tempfile.TemporaryFile(dir=os.environ.get("BENCH_DIR")) as file:
        started = time.perf_counter()
        for _ in range(count):
            os.pwrite(file.fileno(), os.urandom(512), 0)
            os.fdatasync(file.fileno())
        return (time.perf_counter() - started) / count * 1000


if __name__ == "__main__":
    main()
