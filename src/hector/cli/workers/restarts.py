"""Whether a worker that has ended is started again, and when: decided by how it ended."""

import signal
from dataclasses import dataclass

from hector.cli.workers.messages import Failed

STEADY = 10.0
"""Seconds after which the end of a worker is not put down to its start."""
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_STARTS = 3
"""How often a worker may die in a row while not all have served yet."""


@dataclass(frozen=True, slots=True)
class End:
    """Of a worker's process."""

    status: int
    """Exit status; negative for the signal that killed it."""
    lived: float
    """Seconds."""
    failure: Failed | None = None
    """What it told of it."""

    def __str__(self) -> str:
        if self.status >= 0:
            return f"ended with status {self.status}"
        try:
            return f"was killed by {signal.Signals(-self.status).name}"
        except ValueError:
            return f"was killed by signal {-self.status}"


@dataclass(frozen=True, slots=True)
class Again:
    delay: float
    """Seconds."""
    deaths: int
    """Soon after a start, in a row, this one included."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The whole ends."""

    status: int
    lines: tuple[str, ...]
    """For people."""


def after(end: End, number: int, deaths: int, *, served: bool) -> Again | GiveUp:
    """What follows the end of worker `number`, which nobody asked for.

    `deaths` is that of the `Again` before, or 0; `served`: all workers have served at the same time once.
    What the operator has to mend ends the first start; later it may be on its way to be mended, and the
    other workers go on.
    """
    if not served and end.failure:
        return GiveUp(end.failure.status, end.failure.lines)
    deaths = deaths + 1 if end.lived < STEADY else 0
    if not served and deaths >= _STARTS:
        return GiveUp(1, (f"Error: worker {number} cannot start: it {end}, {deaths} times in a row",))
    return Again(_delay(deaths), deaths)


def _delay(deaths: int) -> float:
    """The first time at once, for somebody may wait in a queue."""
    if deaths < 2:
        return 0.0
    return min(_FIRST_DELAY * 2.0 ** min(deaths - 2, 10), _LONGEST_DELAY)
