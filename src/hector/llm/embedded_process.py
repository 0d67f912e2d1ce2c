"""A child process that holds a model, and the client of its socket, which no other user can reach."""

import asyncio
import importlib.util
import json
import secrets
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import cast

from hector.domain.errors import ModelUnavailableError
from hector.llm import embedded_child
from hector.llm.connection import Connection
from hector.llm.embedded_child import Settings
from hector.llm.provider import ProviderModel

_CHILD = Path(embedded_child.__file__)
_START_TIMEOUT = 120.0
_SILENCE = 600.0
"""Seconds without a byte: a slow machine reads a full window for minutes."""
_LONGEST_ROOT = 60
"""Bytes of path above the socket's folder: the whole has room for about 100."""
_KEPT_OUTPUT = 4000
"""Bytes of what the process said last."""


class ModelProcess:
    """One start of the process; it cannot be started again. Ends with its parent, however that ends."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, model: ProviderModel) -> None:
        self._process, self._folder = process, folder
        self.model = model
        self._output = b""
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def spawn(
        cls, file: Path, *, name: str, context: int, max_answer: int, temperature: float, threads: int
    ) -> "ModelProcess":
        """Start it without waiting until it can answer. Raises `ModelUnavailableError`."""
        if importlib.util.find_spec("xllamacpp") is None:
            raise ModelUnavailableError(
                "the embedded model needs its engine: pip install 'hector[local]', or configure another model"
            )
        folder = _new_folder()
        settings = Settings(
            model=str(file),
            socket=str(folder / "model.sock"),
            key=secrets.token_urlsafe(32),
            context=context,
            answer=max_answer,
            temperature=temperature,
            threads=threads,
        )
        try:
            # -P: what lies beside the script (or in the working folder) must not be taken for a library.
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                str(_CHILD),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise ModelUnavailableError(f"the embedded model cannot start: {error.strerror}") from error
            raise
        # Through the pipe, as other users can see a process's arguments; few enough bytes never to wait.
        cast(asyncio.StreamWriter, process.stdin).write(json.dumps(settings).encode() + b"\n")
        return cls(process, folder, _client(name, settings))

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    @property
    def last_words(self) -> str:
        """What it said of its end, to follow a sentence; '' if nothing."""
        lines = self._output.decode(errors="replace").strip().splitlines()
        # The engine's errors are marked, and the first tells the cause; of Python's the last line does.
        marked = [line.partition(" E ")[2] for line in lines if " E " in line]
        return f": {(marked[:1] or lines[-1:])[0].strip()}" if lines else ""

    async def ready(self) -> None:
        """Wait until it can answer; if it cannot, it is stopped. Raises `ModelUnavailableError`."""
        stdout = cast(asyncio.StreamReader, self._process.stdout)
        answer = b""
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                # The client's imports take as long as the load, which is another process's work.
                answer, _ = await asyncio.gather(stdout.readline(), self.model.warm_up())
        except TimeoutError:
            pass
        finally:
            if not answer:
                await self.stop()
        if not answer:
            raise ModelUnavailableError(f"the embedded model did not start{self.last_words}")
        self._output = b""

    async def stop(self) -> None:
        """End it at once; it has nothing to lose."""
        try:
            if self.alive:
                with suppress(ProcessLookupError):
                    self._process.kill()
            await self._process.wait()
            await self._listening
            await self.model.close()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _listen(self) -> None:
        """Read what it says as it is said: a full pipe would stop it."""
        stderr = cast(asyncio.StreamReader, self._process.stderr)
        while data := await stderr.read(_KEPT_OUTPUT):
            self._output = (self._output + data)[-_KEPT_OUTPUT:]


def _new_folder() -> Path:
    """For the socket, of mode 0700; new each time, for a socket that was left over would stop the start."""
    try:
        usual = tempfile.gettempdir()
        root = usual if len(usual.encode()) <= _LONGEST_ROOT else "/tmp"  # noqa: S108 - mkdtemp is safe there
        return Path(tempfile.mkdtemp(prefix="hector-model-", dir=root))
    except OSError as error:
        raise ModelUnavailableError(
            f"the embedded model finds no folder for its socket ({error.strerror}); set TMPDIR to one"
        ) from error


def _client(name: str, settings: Settings) -> ProviderModel:
    def connect() -> Connection:
        # Heavy imports; `ProviderModel` calls this in a thread.
        import httpx2  # noqa: PLC0415

        from hector.llm.openai import connect_openai  # noqa: PLC0415

        # The engine's server now and then hangs up on a connection that is used again.
        fresh = httpx2.Limits(max_keepalive_connections=0)
        return connect_openai(
            name,
            base_url="http://localhost/v1",
            api_key=settings["key"],
            silence=_SILENCE,
            transport=httpx2.AsyncHTTPTransport(uds=settings["socket"], limits=fresh),
        )

    # One more attempt is for a lost connection; what it does not help needs another process.
    return ProviderModel(
        connect, name=name, context_window=settings["context"], retry_pauses=(0.1,), stops_answers=True
    )
