"""What the model was to be sent in each of its calls, by what is stored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.chaos.database import AGENT, MessageRow
from tests.chaos.history import Line, ModelCall
from tests.chaos.runs import Run, lines_of


@dataclass(slots=True)
class Contexts:
    """Of one session."""

    messages: Sequence[MessageRow]
    """Also those that have not begun."""
    runs: Sequence[Run]
    """By seq."""
    _before: dict[int, list[tuple[Line, bool]]] = field(default_factory=dict)
    """What precedes a run, by its seq."""

    def fit(self, call: ModelCall, run: Run, steps: int) -> bool:
        """Whether it was sent what precedes the run, and then so many of the turn's own messages."""
        sent = list(call.lines)
        for line, sure in [*self.before(run), *((line, True) for line in self._own(run, steps))]:
            if sent and sent[0] == line:
                sent.pop(0)
            elif sure:
                return False
        return not sent

    def fit_somewhere(self, call: ModelCall, run: Run) -> bool:
        """Its answer may have got lost with the process that asked."""
        asked = [n for n, row in enumerate(run.rows) if n and row.role == AGENT]
        return any(self.fit(call, run, steps) for steps in (*asked, len(run.rows)))

    def difference(self, call: ModelCall, run: Run, steps: int) -> str:
        wanted = [line for line, sure in self.before(run) if sure] + self._own(run, steps)
        extra = [line for line in call.lines if line not in wanted]
        missing = [line for line in wanted if line not in call.lines]
        return (
            f"{run.asked.text} (seq {run.seq}, {steps} of its messages) by call {call.number}: beyond what"
            f" precedes it {extra}, missing {missing}{'' if extra or missing else ', or in another order'}"
        )

    def before(self, run: Run) -> list[tuple[Line, bool]]:
        """False for what it may have been sent or not."""
        if run.seq not in self._before:
            self._before[run.seq] = list(self._preceding(run))
        return self._before[run.seq]

    def _own(self, run: Run, steps: int) -> list[Line]:
        """A turn that was paused is sent all of it, whatever lies between."""
        earlier = [other for other in self.runs if other.turn_id == run.turn_id and other.seq < run.seq]
        return [*(line for each in earlier for line in each.lines), *lines_of(run.rows[:steps])]

    def _preceding(self, run: Run) -> Iterator[tuple[Line, bool]]:
        turns: dict[str, list[Run]] = {}
        for other in self.runs:
            if other.seq >= run.seq:
                break
            if other.turn_id != run.turn_id:
                # A turn that was paused stands where its last run stands.
                turns[other.turn_id] = [*turns.pop(other.turn_id, []), other]
        for runs in turns.values():
            yield from self._lines_of_turn(runs, run)

    def _lines_of_turn(self, runs: Sequence[Run], asked: Run) -> Iterator[tuple[Line, bool]]:
        """Of those of its runs that there were."""
        last = runs[-1]
        if last.turn is None:
            return
        if last.state == "completed":
            yield from ((line, True) for each in runs for line in each.lines)
            return
        superseded = self._was_superseded(last, asked)
        if superseded is True:
            return
        for each in runs:
            reason = (last.reason or last.state) if each is last else None
            yield Line("user", each.asked.text, reason), superseded is False

    def _was_superseded(self, run: Run, asked: Run) -> bool | None:
        """Whether its message was taken again before the asked one was run; None if nobody can tell."""
        row = run.asked
        later = [other for other in self.messages if other.text == row.text and other.retry > row.retry]
        if not later or not run.is_last:
            return False
        again = min(later, key=lambda other: other.retry)
        if again.seq is not None and again.seq <= asked.seq:
            return True
        # It came later. If it waited then, it may have been taken while the asked one waited, too, or between
        # two attempts of it.
        ran_later = asked.asked.ticket is not None or (asked.turn is not None and asked.turn.attempt > 1)
        return None if again.ticket is not None and ran_later else False
