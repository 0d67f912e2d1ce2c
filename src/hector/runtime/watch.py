"""Who is dead: decided from what this replica has itself seen of the others, without I/O."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from hector.domain.replicas import ReplicaRow


@dataclass(frozen=True, slots=True)
class Look:
    """The rows of the other replicas, as they were at some moment between two of our own clock."""

    asked: float
    answered: float
    rows: Sequence[ReplicaRow]
    freed: Collection[str]
    """The ids of those whose lock nobody holds any more."""


@dataclass(frozen=True, slots=True)
class Verdict:
    dead: Sequence[ReplicaRow]
    again: float
    """When, by our own clock, another look may find one more; `inf` if there are no others."""


@dataclass(frozen=True, slots=True)
class _Seen:
    counter: int
    since: float


class Watch:
    """A counter that stood still is evidence only for as long as we kept looking."""

    def __init__(self, longest_gap: float, stillness: Callable[[float], float]) -> None:
        """`stillness` is that of `ReplicaLocks`.

        After more than `longest_gap` seconds without a look what was seen before proves nothing: we may have
        stood still ourselves, or the store did, and nobody could beat.
        """
        self._longest_gap = longest_gap
        self._stillness = stillness
        self._seen: dict[str, _Seen] = {}
        self._last = -math.inf

    def judge(self, look: Look) -> Verdict:
        before = self._seen if look.asked - self._last <= self._longest_gap else {}
        self._seen, self._last = {}, look.answered
        dead = []
        again = math.inf
        for row in look.rows:
            seen = before.get(row.id)
            if seen is None or seen.counter != row.counter:
                seen = _Seen(row.counter, look.answered)
            self._seen[row.id] = seen
            is_free = row.id in look.freed
            due = seen.since + (min(row.ttl, self._stillness(row.ttl)) if is_free else row.ttl)
            if due <= max(look.asked, seen.since):
                dead.append(row)
            else:
                again = min(again, due)
        return Verdict(dead, again)
