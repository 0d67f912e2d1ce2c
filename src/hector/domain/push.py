"""Whom to tell of a task over HTTP."""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_CONFIGS = 16
"""Of one task."""


@dataclass(frozen=True, slots=True)
class PushConfig:
    """A webhook that is told of one task."""

    id: str
    """Unique in its task; '' takes the task's own id."""
    url: str
    dialect: str
    """In which it was made, by its own word; what is told is written for that version of A2A."""
    token: str | None = None
    """The receiver knows by it that it is meant."""
    schemes: Sequence[str] = ()
    """Of HTTP authentication; the first is used."""
    credentials: str | None = None
