"""What became of the suites' tests, and which failures are excused."""

import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

EXCEPTIONS = Path(__file__).with_name("exceptions.toml")

Outcome: TypeAlias = Literal["passed", "failed", "skipped"]

EVERY = "every"
"""The transport of tests that need none, or several."""


@dataclass(frozen=True, slots=True)
class Result:
    suite: str
    level: str
    """must, should or may; in the suite for 0.3 the name of the category."""
    transport: str
    test: str
    """As pytest names it, below the suite's folder of tests, without the transport."""
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True, slots=True)
class Excused:
    """A test that does not pass, because the specification says otherwise."""

    suite: str
    test: str
    transports: tuple[str, ...]
    outcome: Outcome
    wants: str
    """What the suite wants."""
    where: str
    """In the specification."""
    says: str
    """The sentence there."""

    def covers(self, result: Result) -> bool:
        return (result.suite, result.test, result.outcome) == (
            self.suite,
            self.test,
            self.outcome,
        ) and result.transport in self.transports


def read_exceptions(path: Path = EXCEPTIONS) -> Sequence[Excused]:
    with path.open("rb") as file:
        found = tomllib.load(file)["exception"]
    return [
        Excused(**{"outcome": "failed"} | each | {"transports": tuple(each["transports"])}) for each in found
    ]


@dataclass(frozen=True, slots=True)
class Verdict:
    unexcused: Sequence[Result]
    stale: Sequence[str]
    """Exceptions that excuse nothing any more, in words."""

    @property
    def good(self) -> bool:
        return not self.unexcused and not self.stale


def judge(results: Sequence[Result], exceptions: Sequence[Excused]) -> Verdict:
    """Only of exceptions whose suite was run it is known whether they are needed."""
    ran = {result.suite for result in results}
    return Verdict(
        [each for each in results if each.outcome == "failed" and not _excused(each, exceptions)],
        [
            f"{each.suite}, {each.test}, {transport}: has not {each.outcome}"
            for each in exceptions
            if each.suite in ran
            for transport in each.transports
            if not any(each.covers(result) and result.transport == transport for result in results)
        ],
    )


@dataclass(frozen=True, slots=True)
class Row:
    suite: str
    level: str
    transport: str
    passed: int
    failed: int
    excused: int
    """Failed or skipped, with an exception."""
    skipped: int

    @property
    def cells(self) -> tuple[str, ...]:
        counts = (self.passed, self.failed, self.excused, self.skipped)
        return self.suite, self.level, self.transport, *map(str, counts)


HEADINGS = ("suite", "level", "transport", "passed", "failed", "excused", "skipped")


def rows(results: Sequence[Result], exceptions: Sequence[Excused]) -> Sequence[Row]:
    """By suite, the most demanding level first."""
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for result in results:
        counted = counts.setdefault((result.suite, result.level, result.transport), Counter())
        counted["excused" if _excused(result, exceptions) else result.outcome] += 1
    return [
        Row(*place, count["passed"], count["failed"], count["excused"], count["skipped"])
        for place, count in sorted(counts.items(), key=lambda counted: _place(*counted[0]))
    ]


_LEVELS = ("must", "should", "may", "mandatory", "capabilities", "equivalence", "quality", "features")
_TRANSPORT_ORDER = ("JSON-RPC", "gRPC", "HTTP+JSON", EVERY)


def _place(suite: str, level: str, transport: str) -> tuple[float, int, int]:
    return -float(suite), _LEVELS.index(level), _TRANSPORT_ORDER.index(transport)


def grouped(failures: Iterable[Result]) -> Sequence[tuple[Result, Sequence[str]]]:
    """Each test once, by its first result, with the transports on which it failed."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in failures:
        groups.setdefault((result.suite, result.test), []).append(result)
    return [(group[0], [each.transport for each in group]) for group in groups.values()]


def _excused(result: Result, exceptions: Iterable[Excused]) -> bool:
    return any(each.covers(result) for each in exceptions)


# --- as Markdown, for docs/conformance.md


def table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * len(headings)
    escaped = ([cell.replace("|", r"\|") for cell in line] for line in (headings, rule, *lines))
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def table_of_exceptions(exceptions: Iterable[Excused]) -> str:
    return table(
        ("suite", "test", "transports", "what it wants", "what the specification says"),
        (
            (
                each.suite,
                f"`{each.test}`" + (" (skipped)" if each.outcome == "skipped" else ""),
                ", ".join(each.transports),
                each.wants,
                f"{each.where}: “{each.says}”",
            )
            for each in exceptions
        ),
    )
