"""`hector models`: the weights of the embedded model."""

import sys
from contextlib import AbstractContextManager, nullcontext

from hector.llm.weights import QWEN_CODER, Progress, find, pull

_STEP = 5
"""Percent between two lines where no bar can be drawn."""


def pull_models(source: str | None) -> int:
    """The exit status. Raises `ModelUnavailableError`."""
    if path := find():
        print(f"{path}: there already")
        return 0
    with _progress() as progress:
        path = pull(source, progress=progress)
    print(f"{path}: {QWEN_CODER.size / 1e6:.0f} MB, checked")
    return 0


def _progress() -> AbstractContextManager[Progress]:
    if not sys.stderr.isatty():
        return nullcontext(PercentLines())
    from hector.cli.progress_bar import ProgressBar  # noqa: PLC0415 - rich is slow to import

    return ProgressBar()


class PercentLines:
    """For a log: a line for each source, and for each few percent of it."""

    def __init__(self) -> None:
        self._source = ""
        self._told = 0

    def __call__(self, done: int, total: int, source: str) -> None:
        if source != self._source:
            self._source, self._told = source, 0
            print(f"from {source}", file=sys.stderr, flush=True)
        percent = done * 100 // total
        if percent >= self._told + _STEP:
            self._told = percent - percent % _STEP
            print(f"{self._told} %", file=sys.stderr, flush=True)
