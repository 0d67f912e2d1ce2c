"""A download as a bar in a terminal."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class ProgressBar:
    """Is a `weights.Progress`, and a context manager."""

    def __init__(self) -> None:
        self._progress = Progress(
            "{task.description}",
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int, source: str) -> None:
        if source not in self._tasks:
            # A source that failed does not stay there half drawn.
            for task in self._tasks.values():
                self._progress.update(task, visible=False)
            self._tasks[source] = self._progress.add_task(f"from {escape(source)}")
        self._progress.update(self._tasks[source], completed=done, total=total)
