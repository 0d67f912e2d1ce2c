"""What the tools did, as they wrote it down themselves."""

import asyncio
import contextlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

SIDE_EFFECTS = frozenset({"pay"})
"""The tools that are not declared idempotent."""
ASKS = "ask"
"""The tool whose turn pauses."""
_BETWEEN_LOOKS = 0.002
"""Seconds."""


class ToolRun(NamedTuple):
    tool: str
    key: str
    """Of the call, see `history.key_of`."""
    run: str
    """Unique."""
    pid: int
    at: float
    """By the monotonic clock, which is one for all processes of a machine."""


class Told(NamedTuple):
    """What the result of a call says of its run."""

    key: str
    run: str


_TOLD = re.compile(r"(\S+#\d+\.\d+) ran as ([0-9a-f]+)")
_QUESTION = re.compile(rf"{_TOLD.pattern}, what now\?")


def parse_result(text: str) -> Told | None:
    found = _TOLD.search(text)
    return Told(found[1], found[2]) if found else None


def parse_questions(text: str) -> list[Told] | None:
    """What the user was asked, by one tool or several; None if it is nothing of that kind."""
    found = [
        re.fullmatch(r"(\S+#\d+\.\d+) ran as ([0-9a-f]+), what now\?", line) for line in text.split("\n")
    ]
    questions = [Told(each[1], each[2]) for each in found if each]
    return questions if len(questions) == len(found) else None


class Ledger:
    """A reader, from where the file ends now."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path = path
        self._read = path.stat().st_size

    def news(self) -> list[ToolRun]:
        """What was written since this was last asked."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return [ToolRun(**json.loads(line)) for line in whole.splitlines()]

    async def until_run(self, tools: Collection[str], patience: float) -> ToolRun | None:
        """The next run of one of these; None if there is none within so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while True:
                    for run in self.news():
                        if run.tool in tools:
                            return run
                    # Processes that are about to be killed tell of nothing but in the file.
                    await asyncio.sleep(_BETWEEN_LOOKS)
        return None
