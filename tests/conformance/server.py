"""`hector serve` with examples/conformance.yaml, on free ports and a database of its own."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIG = EXAMPLES / "conformance.yaml"

_STARTS_WITHIN = 60.0
_ENDS_WITHIN = 40.0


class ServerError(Exception):
    """It did not start, or did not end as it should."""


@contextmanager
def served(log: Path) -> Iterator[str]:
    """Its URL. Raises `ServerError`, at its end too if it had a defect."""
    grpc = _free_pair()
    with TemporaryDirectory(prefix="hector-tck-") as folder:
        environ = {"PORT": str(grpc), "HTTP_PORT": str(grpc + 1), "DATABASE": str(Path(folder, "tck.db"))}
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "hector", "serve", "--config", str(CONFIG)],
                cwd=EXAMPLES,
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        try:
            _await_ready(process, log)
            yield f"http://localhost:{grpc + 1}"
        finally:
            status = _stop(process)
        if status:
            raise ServerError(f"hector serve ended with exit status {status}; {log} says why")
        if " ERROR " in log.read_text():
            raise ServerError(f"hector serve logged an error: {log}")


def _free_pair() -> int:
    """A port that is free, as the one after it is: HTTP's."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def _await_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    assert process.stdout
    too_long = threading.Timer(_STARTS_WITHIN, process.kill)
    too_long.start()
    first = process.stdout.readline()
    too_long.cancel()
    if not first.startswith(b"ready"):
        raise ServerError(f"hector serve did not start: {log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> int:
    with process:  # which closes its pipe
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
