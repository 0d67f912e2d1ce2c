"""The two suites: how they are come by, their environment, and how each is run."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.results import EVERY, Result

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".venv" / "tck"
"""What can be made again: the suites' environment and their code."""
REQUIREMENTS = ROOT / "requirements" / "tck.txt"

_PLUGIN = Path(__file__).with_name("plugin")
_OPTIONS = ("-p", "tck_recorder", "-p", "no:cacheprovider", "--tb=short", "-q")
_LONGEST_RUN = 900.0

_TRANSPORTS = {
    "jsonrpc": "JSON-RPC",
    "grpc": "gRPC",
    "http_json": "HTTP+JSON",  # as the suite for 1.0 calls it
    "rest": "HTTP+JSON",  # as the one for 0.3 does
}
TRANSPORTS = tuple(dict.fromkeys(_TRANSPORTS.values()))


class SuiteError(Exception):
    """It cannot be run; the text says why and what would help."""


@dataclass(frozen=True, slots=True)
class Run:
    """One call of pytest."""

    name: str
    arguments: tuple[str, ...]
    level: str | None = None
    """None where marks of its tests tell it."""
    transport: str | None = None
    """None where the tests' names tell it."""


@dataclass(frozen=True, slots=True)
class Suite:
    name: str
    ref: str
    tests: str
    """The folder by which its code is known."""
    runs: Callable[[str], Sequence[Run]]
    """For the URL of a server."""


@dataclass(frozen=True, slots=True)
class Checkout:
    suite: Suite
    folder: Path
    commit: str
    """With its date; '' where nobody knows."""


def _runs_of_1_0(url: str) -> Sequence[Run]:
    return [Run("every transport", ("tests/compatibility/", f"--sut-host={url}"))]


def _runs_of_0_3(url: str) -> Sequence[Run]:
    common = (f"--sut-url={url}", "--test-scope=all")
    runs = []
    for transport in ("jsonrpc", "grpc", "rest"):
        # As its own run_tck.py chooses them.
        protocol = ("tests/mandatory/protocol/", "-m", "mandatory_protocol")
        whole = ("tests/mandatory/", "-m", "mandatory_jsonrpc or mandatory_protocol")
        folders = {
            "mandatory": whole if transport == "jsonrpc" else protocol,
            "capabilities": ("tests/optional/capabilities/",),
            "quality": ("tests/optional/quality/",),
            "features": ("tests/optional/features/",),
        }
        runs += [
            Run(
                f"{category}, {_TRANSPORTS[transport]}",
                (*chosen, *common, "--transports", transport),
                category,
                _TRANSPORTS[transport],
            )
            for category, chosen in folders.items()
        ]
    # The second has a test that wants all of them to be chosen.
    both = (
        "tests/optional/multi_transport/",
        "tests/mandatory/protocol/test_a2a_v030_transport_compliance.py",
    )
    equivalence = Run(
        "equivalence", (*both, *common, "--transports", "jsonrpc,grpc,rest"), "equivalence", EVERY
    )
    return [*runs, equivalence]


SUITES = (
    Suite("1.0", "1.0-dev", "tests/compatibility", _runs_of_1_0),
    Suite("0.3", "0.3.0.beta4", "tests/mandatory", _runs_of_0_3),
)


# --- coming by them


def find(place: Path) -> Sequence[Checkout]:
    """Those that a clone of a2a-tck has, or the one whose files lie there. Raises `SuiteError`."""
    if not place.is_dir():
        raise SuiteError(f"{place} is no folder")
    found = [made for suite in SUITES if (made := _from_git(place, suite))]
    if not found:
        found = [Checkout(suite, place.resolve(), "") for suite in SUITES if (place / suite.tests).is_dir()]
    if not found:
        refs = " and ".join(suite.ref for suite in SUITES)
        raise SuiteError(f"{place} is no clone of a2a-tck that has {refs}, and holds the files of neither")
    return found


def _from_git(place: Path, suite: Suite) -> Checkout | None:
    for ref in (suite.ref, f"origin/{suite.ref}"):
        looked = _git(place, "log", "-1", "--format=%H %cs", ref, "--")
        if looked.returncode == 0:
            commit, date = looked.stdout.decode().split()
            folder = KEPT / f"{suite.name}-{commit[:12]}"
            if not folder.exists():
                _unpack(place, commit, folder)
            return Checkout(suite, folder, f"{commit[:12]} of {date}")
    return None


def _unpack(place: Path, commit: str, folder: Path) -> None:
    partial = folder.with_suffix(".partial")
    partial.mkdir(parents=True, exist_ok=True)
    packed = _git(place, "archive", "--format=tar", commit)
    if packed.returncode:
        raise SuiteError(f"git archive failed in {place}: {packed.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", partial], input=packed.stdout, check=True)
    partial.rename(folder)


def _git(place: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", place, *arguments], capture_output=True, check=False)


def make_environment() -> Path:
    """The Python that runs both, made anew when their pinned packages have changed. Raises `SuiteError`."""
    folder = KEPT / "env"
    made_of, python = folder / ".made-of", folder / "bin" / "python"
    wanted = REQUIREMENTS.read_bytes()
    if made_of.exists() and made_of.read_bytes() == wanted:
        return python
    print(f"installing what {REQUIREMENTS.relative_to(ROOT)} names into {folder}", flush=True)
    install = ["pip", "--python", str(python), "install", "-q", "--disable-pip-version-check", "--no-input"]
    for arguments in (
        ["venv", "--clear", "--without-pip", str(folder)],
        [*install, "--require-hashes", "-r", str(REQUIREMENTS)],
    ):
        done = subprocess.run([sys.executable, "-m", *arguments], check=False)
        if done.returncode:
            raise SuiteError(f"python -m {' '.join(arguments)} failed; the lines above say why")
    made_of.write_bytes(wanted)
    return python


# --- running them


def run(
    checkout: Checkout, python: Path, url: str, log: Path, tell: Callable[[str], None]
) -> Iterator[Result]:
    """Raises `SuiteError` where a run comes to no end."""
    for each in checkout.suite.runs(url):
        said = f"{checkout.suite.name}: {each.name}"
        total = done = 0
        for told in _records(each, checkout.folder, python, log):
            if "collected" in told:
                total = told["collected"]
            elif result := _result(told, checkout.suite.name, each):
                done += 1
                yield result
            tell(f"{said}, {done} of {total} tests")
        if done < total or not total:
            raise SuiteError(f"{said}: {done} of {total} tests were run; {log} says why")


def _records(each: Run, folder: Path, python: Path, log: Path) -> Iterator[Mapping[str, Any]]:
    """What the plugin tells, as it tells it."""
    with _pipe() as (reading, writing), log.open("ab") as output:
        process = subprocess.Popen(
            [python, "-m", "pytest", *each.arguments, *_OPTIONS],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(_PLUGIN),
                "PYTHONDONTWRITEBYTECODE": "1",
                "NO_PROXY": "localhost,127.0.0.1",
                "TCK_RECORD": str(writing),
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[writing],
        )
        os.close(writing)
        too_long = threading.Timer(_LONGEST_RUN, process.kill)
        too_long.start()
        try:
            with os.fdopen(os.dup(reading)) as lines:
                yield from map(json.loads, lines)
        finally:
            too_long.cancel()
            # It has ended, but where this was stopped.
            process.terminate()
            process.wait()


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        os.close(reading)


_IN_BRACKETS = re.compile(r"\[(?:(?P<more>.+)-)?(?P<transport>grpc|jsonrpc|http_json)\]$")


def _result(told: Mapping[str, Any], suite: str, each: Run) -> Result | None:
    return Result(
        suite,
        each.level or next((mark for mark in ("must", "should", "may") if mark in told["marks"]), "none"),
        each.transport or transport_of(told["test"]),
        name_of(told["test"]),
        told["outcome"],
        told["why"],
    )


def transport_of(test: str) -> str:
    """By its parameters, or else by its folder."""
    if found := _IN_BRACKETS.search(test):
        return _TRANSPORTS[found["transport"]]
    return next((_TRANSPORTS[part] for part in test.split("/") if part in _TRANSPORTS), EVERY)


def name_of(test: str) -> str:
    """Without its transport, and without what all names of the suite begin with."""
    test = _IN_BRACKETS.sub(lambda found: f"[{found['more']}]" if found["more"] else "", test)
    return re.sub(r"^tests/(compatibility/)?", "", test)
