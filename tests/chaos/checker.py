"""Compares what clients were told and what the model was asked with what is stored; pure.

Every rule holds at any moment of a run, but those that `final` adds, which hold once nothing goes on.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, groupby, pairwise

from tests.chaos import tool_rules
from tests.chaos.anomalies import Anomaly, Kind
from tests.chaos.contexts import Contexts
from tests.chaos.database import AGENT, USER, MessageRow, PlaceRows, Snapshot
from tests.chaos.history import (
    Answer,
    Delete,
    History,
    ModelCall,
    Place,
    PlaceHistory,
    Send,
    place_of,
)
from tests.chaos.runs import (
    ANSWERED,
    OPEN,
    PAUSED,
    WAITING_FOR_INPUT,
    Run,
    fault_of,
    is_question,
    is_settled,
    model_call_of,
    runs_of,
    successors,
    texts_of,
    texts_of_line,
)

STATES = OPEN | PAUSED | {"auth_required", "completed", "failed", "canceled", "rejected"}
DELETED = "session deleted"
_BROKEN = re.compile(r"session store( '[^']*')? failed")
"""What a server says of its store beyond an outage, which is no anomaly and has the status 503."""
SUPERSEDED = "superseded"
HANDED_OVER = "handed over"
"""In place of the replica that runs a turn, while there is none."""


@dataclass(slots=True)
class Checker:
    """Remembers how turns ended between its looks."""

    ended: dict[tuple[Place, str, int], tuple[str, float]] = field(default_factory=dict)
    """By turn and the seq of the run: how it ended, and when that was seen."""

    def check(self, history: History, snapshot: Snapshot, *, final: bool = False) -> list[Anomaly]:
        """Of the places that the snapshot was taken of, and those of the history that it has no rows of."""
        found = [
            Anomaly(Kind.FOREIGN, None, f"model call {call.number} was asked {call.text!r}")
            for call in history.strange_calls
        ]
        found += [
            Anomaly(Kind.FOREIGN, None, f"{run.tool} was called with {run.key!r}")
            for run in history.strange_runs
        ]
        places = set(snapshot.places) | (set(history.places) if final else set())
        for place in sorted(places):
            told = history.places.get(place)
            if told is None:
                found.append(Anomaly(Kind.FOREIGN, place, "nobody ever wrote to this session"))
                continue
            look = Look(told, snapshot.at(place), snapshot.since, snapshot.until, history.calls)
            found += [Anomaly(kind, place, what) for kind, what in look.anomalies(final=final)]
            found += [Anomaly(Kind.CHANGED, place, what) for what in self._changes(look)]
        return found

    def _changes(self, look: "Look") -> Iterator[str]:
        place = look.told.place
        now = {
            (place, run.turn_id, run.seq): f"{run.state} ({run.reason}) with {run.reply!r}"
            for run in look.runs
            if run.state not in OPEN
        }
        for key, (was, seen) in list(self.ended.items()):
            if key[0] != place or now.get(key) == was:
                continue
            del self.ended[key]
            if key in now:
                yield f"turn {key[1]} was {was} and is {now[key]}"
            elif not look.told.maybe_deleted(seen, look.until):
                yield f"turn {key[1]} was {was} and is gone"
        self.ended.update({key: (is_, look.since) for key, is_ in now.items()})


@dataclass(slots=True)
class Look:
    """One place, at one moment."""

    told: PlaceHistory
    rows: PlaceRows
    since: float
    until: float
    calls: Mapping[int, ModelCall]
    """All of the run, by number."""
    begun: list[MessageRow] = field(init=False)
    """By seq."""
    runs: list[Run] = field(init=False)
    successors: Mapping[str, str] = field(init=False)
    contexts: Contexts = field(init=False)

    def __post_init__(self) -> None:
        self.runs = runs_of(self.rows)
        self.begun = sorted((row for run in self.runs for row in run.rows), key=lambda row: row.seq or 0)
        self.successors = successors(self.rows)
        self.contexts = Contexts(self.rows.messages, self.runs, self.successors)

    def anomalies(self, *, final: bool) -> Iterator[tuple[Kind, str]]:
        yield from self._acknowledged()
        yield from self._answers_agree()
        yield from self._refusals()
        yield from self._model_was_asked()
        yield from self._tries()
        yield from self._runs()
        yield from self._contexts()
        yield from self._sequence()
        yield from self._order()
        yield from self._lease()
        yield from self._marks()
        yield from self._texts()
        yield from self._former_life()
        yield from tool_rules.anomalies(self.told, self.rows, self.since, self.until)
        if final:
            yield from self._nothing_open()

    # --- promises 1 and 3: what clients were told

    def _acknowledged(self) -> Iterator[tuple[Kind, str]]:
        for send, answer in self._answered():
            if send.end > self.since or self.told.maybe_deleted(send.start, self.until):
                continue
            if answer.reason == DELETED:
                yield Kind.FALSE_DELETE, f"{send.text} got it as its answer"
                continue
            run = self._run_of(answer.turn_id, send.text)
            if run is None:
                yield Kind.LOST, f"{send.text} was {answer.state} as {answer.turn_id}, which is not there"
            elif run.state != answer.state:
                said = f"{send.text} was answered {answer.state}"
                yield Kind.CHANGED, f"{said}, but {run.turn_id} is {run.state} ({run.reason})"
            elif run.state in ANSWERED and run.reply != answer.reply:
                yield Kind.LOST, f"{send.text} was answered {answer.reply!r}, its turn says {run.reply!r}"

    def _run_of(self, turn_id: str, text: str) -> Run | None:
        return next((run for run in self.runs if (run.turn_id, run.asked.text) == (turn_id, text)), None)

    def _answers_agree(self) -> Iterator[tuple[Kind, str]]:
        for text, sends in self.told.sends.items():
            answered = [(send, send.answer) for send in sends if send.answer]
            for (one, first), (other, second) in combinations(answered, 2):
                start, end = min(one.start, other.start), max(one.end, other.end)
                if self.told.maybe_deleted(start, end):
                    continue
                if _is_settled(first) and _is_settled(second):
                    differ = first != second
                else:
                    # Another failure may be tried again.
                    done, after = (one, other) if _is_settled(first) else (other, one)
                    differ = first.turn_id == second.turn_id and first.state != second.state
                    differ |= (_is_settled(first) or _is_settled(second)) and done.end < after.start
                if differ:
                    yield Kind.DISAGREE, f"{text}: {first} and {second}"

    def _refusals(self) -> Iterator[tuple[Kind, str]]:
        for text, sends in self.told.sends.items():
            for send in sends:
                if send.refusal and not self._may_be_refused(send, send.refusal):
                    yield Kind.REFUSED, f"{text} for {send.task}: {send.refusal}"
            if all((send.refusal or "").startswith("400") for send in sends):
                for run in self.runs:
                    if run.asked.text == text:
                        yield Kind.REFUSED, f"{text}, and yet it is seq {run.seq} of turn {run.turn_id}"

    def _may_be_refused(self, send: Send, refusal: str) -> bool:
        if refusal.startswith("503"):
            return not _BROKEN.search(refusal)
        if send.task is None:
            return False
        if refusal.startswith("404"):
            return self.told.maybe_deleted(self._first_told_of(send.task), min(send.end, self.until))
        # Another answer to the same question came first.
        others = (other for text, each in self.told.sends.items() if text != send.text for other in each)
        rivals = any(other.task == send.task and other.start < send.end for other in others)
        return refusal.startswith("400") and "not_paused" in refusal and rivals

    def _first_told_of(self, turn_id: str) -> float:
        """When its message was sent."""
        answered = (send.text for send, answer in self._answered() if answer.turn_id == turn_id)
        return min(map(self.told.first_sent, answered), default=0.0)

    # --- promise 2: saved before the model is asked

    def _model_was_asked(self) -> Iterator[tuple[Kind, str]]:
        stored = {row.text for row in self.rows.messages if row.role == USER}
        for call in self.told.calls:
            if call.at > self.since or call.text in stored:
                continue
            if not self.told.maybe_deleted(self.told.first_sent(call.text), self.until):
                yield Kind.UNSAVED, f"{call.text} by call {call.number}"

    # --- promise 3: once for each message id

    def _tries(self) -> Iterator[tuple[Kind, str]]:
        tries: dict[str, list[MessageRow]] = {}
        for row in self.rows.messages:
            if row.role == USER:
                tries.setdefault(row.text, []).append(row)
        for text, rows in tries.items():
            if any(row.turn_id not in self.rows.turns for row in rows):
                yield Kind.RETRIES, f"{text} is of a turn that is not there"
                continue
            ends = [self._end_of(row) for row in rows]
            if sum(state in ANSWERED for state, _ in ends) > 1:
                yield Kind.TWICE, f"{text}: turns {[row.turn_id for row in rows]}"
            if [row.retry for row in rows] != list(range(len(rows))):
                yield Kind.RETRIES, f"{text}: {[row.retry for row in rows]}"
            if any(state in OPEN or is_settled(state, reason) for state, reason in ends[:-1]):
                yield Kind.RETRIES, f"{text} was tried again after {ends}"
            yield from self._superseded(rows)
        said = Counter(row.text for row in self.rows.messages if row.role == AGENT and row.text)
        said += Counter(call.key for row in self.rows.messages for call in row.calls)
        for reply, times in said.items():
            if times > 1:
                yield Kind.TWICE, f"{reply!r} is stored {times} times"

    def _end_of(self, row: MessageRow) -> tuple[str, str | None]:
        """State and reason of what the message led to."""
        if row.waits:
            return "submitted", None
        if row.run_state is not None:
            return row.run_state, None
        turn = self.rows.turns[row.turn_id]
        return turn.state, turn.reason

    def _superseded(self, rows: list[MessageRow]) -> Iterator[tuple[Kind, str]]:
        """`rows` are the tries of one message."""
        for row in rows:
            turn = self.rows.turns[row.turn_id]
            # Where its turn went on after it, or never took it, others decide.
            decides = row.seq is not None and row.run_state is None
            if decides and turn.superseded != (row is not rows[-1]):
                yield Kind.RETRIES, f"{row.text}: turn {turn.id} is superseded: {turn.superseded}"

    # --- promise 4: one turn at a time, and what it was sent

    def _runs(self) -> Iterator[tuple[Kind, str]]:
        number = {id(row): n for n, run in enumerate(self.runs) for row in run.rows}
        stands = Counter(n for n, _ in groupby(self.begun, key=lambda row: number[id(row)]))
        for n, times in stands.items():
            if times > 1:
                yield Kind.SPLIT, f"a run of turn {self.runs[n].turn_id} stands in {times} places"
        for run in self.runs:
            if run.turn is None:
                yield Kind.SPLIT, f"seq {run.seq} is of turn {run.turn_id}, which is not there"
            elif fault := fault_of(run):
                yield Kind.SPLIT, f"turn {run.turn_id}, seq {run.seq}, {fault}"
        before = {after: self.rows.turns[turn] for turn, after in self.successors.items()}
        by_turn: dict[str, list[tuple[int, int | None]]] = {}
        for run in self.runs:
            last = run.rows[-1].seq if run.state not in OPEN else None
            by_turn.setdefault(run.turn_id, []).append((run.seq, last))
        for turn in self.rows.turns.values():
            says = [*turn.earlier_runs, *([(turn.first_seq, turn.last_seq)] if turn.first_seq else [])]
            taken = before[turn.id].earlier_runs if turn.id in before else ()
            if says != [*taken, *by_turn.get(turn.id, [])]:
                its = f"its messages are {by_turn.get(turn.id)}, and {taken} of another"
                yield Kind.SPLIT, f"turn {turn.id} says {says}, {its}"
            if turn.state in ANSWERED and turn.id not in by_turn:
                yield Kind.SPLIT, f"turn {turn.id} is {turn.state} and has no messages"

    def _contexts(self) -> Iterator[tuple[Kind, str]]:
        asked: dict[str, list[Run]] = {}
        for run in self.runs:
            asked.setdefault(run.asked.text, []).append(run)
            for steps, row in enumerate(run.rows):
                if row.role == AGENT and not is_question(row):
                    yield from self._said_by_model(run, steps, row)
        for call in self.told.calls:
            tries = asked.get(call.text, [])
            if call.at > self.since or not tries:
                continue
            if any(self.contexts.fit_somewhere(call, run) for run in tries):
                continue
            if not self.told.maybe_deleted(self.told.first_sent(call.text), self.until):
                yield Kind.CONTEXT, self.contexts.difference(call, tries[-1], len(tries[-1].rows))

    def _said_by_model(self, run: Run, steps: int, row: MessageRow) -> Iterator[tuple[Kind, str]]:
        call = self.calls.get(model_call_of(row) or 0)
        calls = tuple((each.name, each.key) for each in row.calls)
        if call is None or call.text != run.asked.text or call.asks_for != calls:
            said = f"{run.asked.text} was answered {row.text!r} and {calls}"
            yield Kind.CONTEXT, f"{said}, which was not said to it"
        elif not self.contexts.fit(call, run, steps):
            yield Kind.CONTEXT, self.contexts.difference(call, run, steps)

    # --- promise 5: the database's order

    def _sequence(self) -> Iterator[tuple[Kind, str]]:
        session = self.rows.session
        if session is None:
            if self.rows.turns or self.rows.messages:
                yield Kind.FORMER_LIFE, "turns or messages without a session"
            return
        seqs = [row.seq for row in self.begun]
        if seqs != list(range(1, session.last_seq + 1)):
            yield Kind.GAP, f"last_seq is {session.last_seq}, there are {seqs}"
        waiting = sum(row.waits for row in self.rows.messages)
        if waiting != session.waiting:
            yield Kind.WAITING, f"it says {session.waiting}, and {waiting} wait"

    def _order(self) -> Iterator[tuple[Kind, str]]:
        tickets = [row.ticket for row in self.begun if row.ticket is not None]
        tickets += sorted(row.ticket or 0 for row in self.rows.messages if row.waits)
        if any(one >= other for one, other in pairwise(tickets)):
            yield Kind.ORDER, f"tickets were called in the order {tickets}"
        latest = 0.0
        for run in self.runs:
            sends = self.told.sends.get(run.asked.text, [])
            answered = [send.end for send in sends if send.answer and send.answer.turn_id == run.turn_id]
            if answered and min(answered) < latest:
                yield Kind.ORDER, f"{run.asked.text} was answered before those that precede it were sent"
            # A repeat may have been the one that was stored, so only the first is sure to come earlier.
            latest = max(latest, min((send.start for send in sends), default=0.0))

    # --- promises 4 and 6: leases

    def _lease(self) -> Iterator[tuple[Kind, str]]:
        session = self.rows.session
        if session is None:
            return
        working = [turn.id for turn in self.rows.turns.values() if turn.state == "working"]
        if working != ([session.lease_turn_id] if session.lease_turn_id else []):
            yield Kind.LEASE, f"turn {session.lease_turn_id} has the lease, and {working} work"
        for turn in self.rows.turns.values():
            if turn.state not in STATES:
                yield Kind.LEASE, f"turn {turn.id} has the state {turn.state!r}"
            # While nobody runs it, it is nobody's.
            owner = (session.lease_owner or HANDED_OVER) if turn.state == "working" else None
            if turn.replica_id != owner:
                yield Kind.LEASE, f"turn {turn.id} is {turn.state} at {turn.replica_id}, the lease at {owner}"
            waiting = [row.text for row in self.rows.messages if row.turn_id == turn.id and row.waits]
            answers = [text for text in waiting if self._answers(text, turn.id)]
            fits = len(waiting) == 1 if turn.state == "submitted" else waiting == answers
            if not fits:
                yield Kind.LEASE, f"turn {turn.id} is {turn.state}, and {waiting} waits for it"

    def _answers(self, text: str, turn_id: str) -> bool:
        """The message named the turn, which had asked something."""
        return any(send.task == turn_id for send in self.told.sends.get(text, []))

    def _marks(self) -> Iterator[tuple[Kind, str]]:
        for run in self.runs:
            turn = run.turn
            if turn is None:
                continue
            # What its pauses ended is the turn's that took its place.
            while not run.is_last and turn.superseded and turn.id in self.successors:
                turn = self.rows.turns[self.successors[turn.id]]
            if turn.superseded:
                wanted: str | None = SUPERSEDED
            elif turn.state in OPEN:
                wanted = None if run.is_last else WAITING_FOR_INPUT
            else:
                wanted = None if turn.state == "completed" else turn.reason or turn.state
            marks = {row.unanswered for row in run.rows}
            if marks != {wanted}:
                yield Kind.MARK, f"turn {turn.id} is {turn.state} ({turn.reason}), its messages say {marks}"

    def _nothing_open(self) -> Iterator[tuple[Kind, str]]:
        session = self.rows.session
        if session and (session.lease_owner or session.lease_turn_id or session.waiting):
            yield Kind.OPEN, f"lease {session.lease_turn_id}, {session.waiting} waiting"
        for turn in self.rows.turns.values():
            if turn.state in OPEN:
                yield Kind.OPEN, f"turn {turn.id} is {turn.state}"

    # --- promise 9: nobody else's, and nothing of a former life

    def _texts(self) -> Iterator[tuple[Kind, str]]:
        for row in self.rows.messages:
            for text in texts_of(row):
                if text is None or place_of(text) != self.told.place:
                    yield Kind.FOREIGN, f"seq {row.seq} is {row.text!r}, {row.calls}, {row.result}"
                elif text not in self.told.sends:
                    yield Kind.FOREIGN, f"nobody said {text!r}, seq {row.seq}"
        for run in self.runs:
            if {text for row in run.rows for text in texts_of(row)} != {run.asked.text}:
                yield Kind.FOREIGN, f"what turn {run.turn_id} did is not for {run.asked.text} alone"
        for call in self.told.calls:
            for line in call.lines:
                texts = list(texts_of_line(line))
                strange = any(text is None or place_of(text) != self.told.place for text in texts)
                if strange or call.agent != self.told.place.agent:
                    yield Kind.FOREIGN, f"call {call.number} of {call.agent} for {call.text} was sent {line}"

    def _former_life(self) -> Iterator[tuple[Kind, str]]:
        for delete in self.told.deletes:
            if delete.found:
                yield from self._survivors(delete)

    def _survivors(self, delete: Delete) -> Iterator[tuple[Kind, str]]:
        old = self.told.surely_before(delete)
        if delete.end < self.since:
            for row in self.rows.messages:
                if old.intersection(texts_of(row)):
                    yield Kind.FORMER_LIFE, f"{row.text!r}, {row.calls} is stored as seq {row.seq}"
        for call in self.told.calls:
            if call.at > delete.end and self.told.surely_after(call.text, delete):
                for line in call.lines:
                    if old.intersection(texts_of_line(line)):
                        yield Kind.FORMER_LIFE, f"call {call.number} for {call.text} was sent {line}"

    def _answered(self) -> Iterator[tuple[Send, Answer]]:
        for sends in self.told.sends.values():
            for send in sends:
                if send.answer:
                    yield send, send.answer


def _is_settled(answer: Answer) -> bool:
    return is_settled(answer.state, answer.reason)
