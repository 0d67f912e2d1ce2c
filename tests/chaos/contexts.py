"""What the model was to be sent in each of its calls, by what is stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from tests.chaos.database import AGENT, MessageRow
from tests.chaos.history import Line, ModelCall
from tests.chaos.runs import WAITING_FOR_INPUT, Run, lines_of


@dataclass(slots=True)
class Contexts:
    """Of one session."""

    messages: Sequence[MessageRow]
    """Also those that have not begun."""
    runs: Sequence[Run]
    """By seq."""
    successors: Mapping[str, str]
    """See `runs.successors`."""
    _before: dict[int, list[list[Line]]] = field(default_factory=dict)
    """What precedes a run, by its seq."""

    def fit(self, call: ModelCall, run: Run, steps: int) -> bool:
        """Whether it was sent what precedes the run, and then so many of the turn's own messages."""
        own = self._own(run, steps)
        return any([*before, *own] == list(call.lines) for before in self.before(run))

    def fit_somewhere(self, call: ModelCall, run: Run) -> bool:
        """Its answer may have got lost with the process that asked."""
        asked = [n for n, row in enumerate(run.rows) if n and row.role == AGENT]
        return any(self.fit(call, run, steps) for steps in (*asked, len(run.rows)))

    def difference(self, call: ModelCall, run: Run, steps: int) -> str:
        wanted = self.before(run)[0] + self._own(run, steps)
        extra = [line for line in call.lines if line not in wanted]
        missing = [line for line in wanted if line not in call.lines]
        return (
            f"{run.asked.text} (seq {run.seq}, {steps} of its messages) by call {call.number}: beyond what"
            f" precedes it {extra}, missing {missing}{'' if extra or missing else ', or in another order'}"
        )

    def before(self, run: Run) -> list[list[Line]]:
        """All that it may be: of some messages nobody can tell whether they had been taken again by then."""
        if run.seq not in self._before:
            others = [other for other in self.runs if other.seq < run.seq and not self._is_of_one(other, run)]
            facts = [self._was_superseded(other, run) for other in others]
            self._before[run.seq] = [
                self._preceding(run, list(zip(others, superseded, strict=True)))
                for superseded in product(*([True, False] if fact is None else [fact] for fact in facts))
            ]
        return self._before[run.seq]

    def _own(self, run: Run, steps: int) -> list[Line]:
        """A turn that was paused is sent all of it, whatever lies between."""
        earlier = [other for other in self.runs if self._is_of_one(other, run) and other.seq < run.seq]
        return [*(line for each in earlier for line in each.lines), *lines_of(run.rows[:steps])]

    def _preceding(self, run: Run, others: Sequence[tuple[Run, bool]]) -> list[Line]:
        """... where of each is known whether it was superseded."""
        turns: dict[str, list[Run]] = {}
        gone = set[str]()
        for other, superseded in others:
            if superseded:
                # It is not there, and what its turn did before stands where it stood.
                gone.add(other.turn_id)
                continue
            # A turn that was paused stands where its last run stands.
            turns[other.turn_id] = [*turns.pop(other.turn_id, []), other]
        lines = []
        for turn_id, runs in turns.items():
            last = runs[-1]
            if turn_id in gone:
                lines += self._taken_along(runs, run)
            elif last.state == "completed":
                lines += _said(runs)
            elif last.turn:
                lines += _unanswered(runs, last.reason or last.state)
        return lines

    def _taken_along(self, runs: Sequence[Run], asked: Run) -> list[Line]:
        """What pauses ended of a turn that was superseded: it is as the turn that goes on with it."""
        if not runs:
            return []
        heir, turn_id = None, runs[0].turn_id
        while next_turn := self.successors.get(turn_id):
            turn_id = next_turn
            theirs = [other for other in self.runs if other.turn_id == turn_id and other.seq < asked.seq]
            heir = theirs[-1] if theirs else heir
        if heir is None or self._was_superseded(heir, asked):
            return _unanswered(runs, WAITING_FOR_INPUT)
        return _said(runs) if heir.state == "completed" else _unanswered(runs, heir.reason or heir.state)

    def _is_of_one(self, other: Run, run: Run) -> bool:
        """Both are runs of one turn, or of one that took its place."""
        taken = run.turn.earlier_runs if run.turn else ()
        return other.turn_id == run.turn_id or other.seq in {first for first, _ in taken}

    def _was_superseded(self, run: Run, asked: Run) -> bool | None:
        """Whether its message was taken again before the asked one was run; None if nobody can tell."""
        row = run.asked
        later = [other for other in self.messages if other.text == row.text and other.retry > row.retry]
        if not later or not run.is_last or run.state == "completed":
            return False
        again = min(later, key=lambda other: other.retry)
        if again.seq is not None and again.seq <= asked.seq:
            return True
        # It came later. If it waited then, it may have been taken while the asked one waited, too, or between
        # two attempts of it.
        ran_later = asked.asked.ticket is not None or (asked.turn is not None and asked.turn.attempt > 1)
        return None if again.ticket is not None and ran_later else False


def _said(runs: Sequence[Run]) -> list[Line]:
    return [line for run in runs for line in run.lines]


def _unanswered(runs: Sequence[Run], reason: str | None) -> list[Line]:
    """The users' messages alone, the last with a marker."""
    return [Line("user", run.asked.text, reason if run is runs[-1] else None) for run in runs]
