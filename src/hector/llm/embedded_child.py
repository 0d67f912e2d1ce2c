"""The process that holds the embedded model and speaks the OpenAI protocol on a unix socket.

Apart from its parent because loading holds the GIL for seconds, and a crash in native code ends the process.
It is started by path and imports nothing of Hector's. It reads one line of JSON (a `Settings`), writes the
line `ready`, and ends when its standard input does, so also when its parent is killed.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
from typing import Any, TypedDict


class Settings(TypedDict):
    model: str
    """Path of the GGUF file."""
    socket: str
    """Path in a folder that nobody else can enter; it ends in `.sock`, so that it is not taken for a host."""
    key: str
    """Every request must show it."""
    context: int
    """Tokens of a request and its answer together."""
    answer: int
    """Tokens of an answer at most: a small model may not find its end."""
    temperature: float
    threads: int


def main() -> None:
    # Ctrl-C and a service manager's SIGTERM reach the whole process group, but the parent decides what is
    # still to be finished.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    # Native code may print; what is written on standard output is our word alone.
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    settings: Settings = json.loads(sys.stdin.readline())
    server = _serve(settings)
    with contextlib.suppress(BrokenPipeError), report:
        report.write("ready\n")
    sys.stdin.read()
    with contextlib.suppress(OSError):
        os.unlink(settings["socket"])  # noqa: PTH108 - pathlib costs an import
        os.rmdir(os.path.dirname(settings["socket"]))  # noqa: PTH106, PTH120 - the same
    # The server's own end can hang when it comes soon after the load.
    os._exit(0 if server else 1)


def _serve(settings: Settings) -> Any:
    # It has no types, and whoever imports this file for `Settings` need not have it.
    xllamacpp = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.hostnames = [settings["socket"]]
    params.api_keys = [settings["key"]]
    params.n_ctx = settings["context"]
    params.n_predict = settings["answer"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.n_parallel = 1
    params.n_threads_http = 2
    # What a cancelled request still costs is one batch; larger ones are no faster on a CPU.
    params.n_batch = params.n_ubatch = 128
    params.cache_ram_mib = 256
    params.n_gpu_layers = 0
    params.fit_params = False
    # A test of one token that makes the load longer and the first answer no shorter.
    params.warmup = False
    params.sampling.temp = settings["temperature"]
    params.verbosity = 1  # errors; never a prompt
    params.ui = False
    params.endpoint_slots = False
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
