"""Processes of processes, by what Linux tells of them."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path


def children_of(pid: int) -> list[int]:
    """Those that run; none if it has ended."""
    found = []
    # Not its list of children, which not every kernel keeps.
    for folder in Path("/proc").glob("[0-9]*"):
        state, parent = _state_and_parent(folder)
        if parent == pid and state not in _ENDED:
            found.append(int(folder.name))
    return sorted(found)


def send_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def until_ended(pids: Iterable[int]) -> None:
    for pid in pids:
        while _state_and_parent(Path(f"/proc/{pid}"))[0] not in _ENDED:  # noqa: ASYNC110 - another's child
            await asyncio.sleep(0.01)


_ENDED = {"", "Z", "X"}


def _state_and_parent(folder: Path) -> tuple[str, int]:
    try:
        stat = (folder / "stat").read_text()
    except OSError:  # it has ended
        return "", 0
    # The name before it may hold anything.
    state, parent, *_ = stat.rpartition(")")[2].split()
    return state, int(parent)
