"""Compares what clients were told and what the model was asked with what is stored; pure.

Every rule holds at any moment of a run, but those that `final` adds, which hold once nothing goes on.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations, groupby, pairwise

from tests.chaos.database import AGENT, USER, MessageRow, PlaceRows, Snapshot, TurnRow
from tests.chaos.history import (
    Answer,
    Delete,
    History,
    Line,
    ModelCall,
    Place,
    PlaceHistory,
    Send,
    parse_reply,
    place_of,
)

OPEN = frozenset({"submitted", "working"})
STATES = OPEN | {
    "input_required",
    "auth_required",
    "completed",
    "failed",
    "canceled",
    "rejected",
}
DELETED = "session deleted"
_BROKEN = re.compile(r"session store( '[^']*')? failed")
"""What a server says of its store beyond an outage, which is no anomaly and has the status 503."""
SUPERSEDED = "superseded"
HANDED_OVER = "handed over"
"""In place of the replica that runs a turn, while there is none."""


class Kind(StrEnum):
    LOST = "an acknowledged turn is lost"
    CHANGED = "a turn changed after it had ended"
    DISAGREE = "answers to one message differ"
    REFUSED = "a message was refused"
    FALSE_DELETE = "a deletion was reported that nobody asked for"
    UNSAVED = "the model was asked what is not stored"
    TWICE = "a message was answered twice"
    RETRIES = "the tries of a message do not follow one another"
    SPLIT = "a turn's messages do not stand together"
    CONTEXT = "the model was sent another context than the turn has"
    GAP = "sequence numbers have a gap"
    WAITING = "the counter of waiting messages is wrong"
    ORDER = "turns are not in order"
    LEASE = "lease and turns do not fit together"
    OPEN = "a turn was left open"
    MARK = "a turn that has no answer is not marked so"
    FOREIGN = "a text stands in another's session"
    FORMER_LIFE = "a deleted session goes on"


@dataclass(frozen=True, slots=True)
class Anomaly:
    kind: Kind
    place: Place | None
    what: str

    def __str__(self) -> str:
        where = f" in {'/'.join(self.place)}" if self.place else ""
        return f"{self.kind}{where}: {self.what}"


@dataclass(slots=True)
class Checker:
    """Remembers how turns ended between its looks."""

    ended: dict[tuple[Place, str], tuple[TurnRow, str, float]] = field(default_factory=dict)
    """Row, reply, and when it was seen."""

    def check(self, history: History, snapshot: Snapshot, *, final: bool = False) -> list[Anomaly]:
        """Of the places that the snapshot was taken of, and those of the history that it has no rows of."""
        found = [
            Anomaly(Kind.FOREIGN, None, f"model call {call.number} was asked {call.text!r}")
            for call in history.strange_calls
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
        for turn in look.rows.turns.values():
            if turn.state in OPEN:
                continue
            key, reply = (look.told.place, turn.id), look.reply_of(turn)
            if before := self.ended.get(key):
                was, said, _ = before
                if (was.state, was.reason, said) != (turn.state, turn.reason, reply):
                    yield (
                        f"turn {turn.id} was {was.state} ({was.reason}) with {said!r}"
                        f" and is {turn.state} ({turn.reason}) with {reply!r}"
                    )
            self.ended[key] = (turn, reply, look.since)
        for (place, turn_id), (was, _, seen) in list(self.ended.items()):
            if place == look.told.place and turn_id not in look.rows.turns:
                del self.ended[place, turn_id]
                if not look.told.maybe_deleted(seen, look.until):
                    yield f"turn {turn_id} was {was.state} and is gone"


@dataclass(slots=True)
class Look:
    """One place, at one moment."""

    told: PlaceHistory
    rows: PlaceRows
    since: float
    until: float
    calls: Mapping[int, ModelCall]
    """All of the run, by number."""
    by_turn: dict[str, list[MessageRow]] = field(init=False)
    """Those that have begun, by seq."""
    begun: list[MessageRow] = field(init=False)

    def __post_init__(self) -> None:
        self.begun = sorted(
            (row for row in self.rows.messages if row.seq is not None), key=lambda row: row.seq or 0
        )
        self.by_turn = {}
        for row in self.begun:
            self.by_turn.setdefault(row.turn_id, []).append(row)

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
        if final:
            yield from self._nothing_open()

    def reply_of(self, turn: TurnRow) -> str:
        rows = self.by_turn.get(turn.id, [])
        return rows[-1].text if rows and rows[-1].role == AGENT else ""

    # --- promises 1 and 3: what clients were told

    def _acknowledged(self) -> Iterator[tuple[Kind, str]]:
        for send, answer in self._answered():
            if send.end > self.since or self.told.maybe_deleted(send.start, self.until):
                continue
            if answer.reason == DELETED:
                yield Kind.FALSE_DELETE, f"{send.text} got it as its answer"
                continue
            turn = self.rows.turns.get(answer.turn_id)
            if turn is None:
                yield Kind.LOST, f"{send.text} was {answer.state} as {answer.turn_id}, which is not there"
            elif turn.state != answer.state:
                yield Kind.CHANGED, f"{send.text} was answered {answer.state}, but {turn.id} is {turn.state}"
            elif turn.state == "completed":
                yield from self._stored_whole(send, answer, turn)

    def _stored_whole(self, send: Send, answer: Answer, turn: TurnRow) -> Iterator[tuple[Kind, str]]:
        said = [(row.role, row.text) for row in self.by_turn.get(turn.id, [])]
        if said != [(USER, send.text), (AGENT, answer.reply)]:
            yield Kind.LOST, f"{send.text} was answered {answer.reply!r}, but its turn is {said}"

    def _answers_agree(self) -> Iterator[tuple[Kind, str]]:
        for text, sends in self.told.sends.items():
            answered = [(send, send.answer) for send in sends if send.answer]
            for (one, first), (other, second) in combinations(answered, 2):
                start, end = min(one.start, other.start), max(one.end, other.end)
                if self.told.maybe_deleted(start, end):
                    continue
                states = {first.state, second.state}
                if states == {"completed"}:
                    differ = (first.turn_id, first.reply) != (second.turn_id, second.reply)
                else:
                    # A failure may be tried again; what is completed stays so.
                    done, after = (one, other) if first.state == "completed" else (other, one)
                    differ = first.turn_id == second.turn_id and len(states) > 1
                    differ |= "completed" in states and done.end < after.start
                if differ:
                    yield Kind.DISAGREE, f"{text}: {first} and {second}"

    def _refusals(self) -> Iterator[tuple[Kind, str]]:
        for sends in self.told.sends.values():
            for send in sends:
                if send.refusal and (not send.refusal.startswith("503") or _BROKEN.search(send.refusal)):
                    yield Kind.REFUSED, f"{send.text}: {send.refusal}"

    # --- promise 2: saved before the model is asked

    def _model_was_asked(self) -> Iterator[tuple[Kind, str]]:
        stored = {row.text for row in self.rows.messages if row.role == USER}
        for call in self.told.calls:
            if call.at > self.since or call.text in stored:
                continue
            start = min((send.start for send in self.told.sends.get(call.text, [])), default=0.0)
            if not self.told.maybe_deleted(start, self.until):
                yield Kind.UNSAVED, f"{call.text} by call {call.number}"

    # --- promise 3: once for each message id

    def _tries(self) -> Iterator[tuple[Kind, str]]:
        tries: dict[str, list[MessageRow]] = {}
        for row in self.rows.messages:
            if row.role == USER:
                tries.setdefault(row.text, []).append(row)
        for text, rows in tries.items():
            turns = [self.rows.turns.get(row.turn_id) for row in rows]
            if None in turns:
                yield Kind.RETRIES, f"{text} is of a turn that is not there"
                continue
            known = [turn for turn in turns if turn]
            if sum(turn.state == "completed" for turn in known) > 1:
                yield Kind.TWICE, f"{text}: turns {[turn.id for turn in known]}"
            if [row.retry for row in rows] != list(range(len(rows))):
                yield Kind.RETRIES, f"{text}: {[row.retry for row in rows]}"
            if any(turn.state in OPEN | {"completed"} for turn in known[:-1]):
                yield Kind.RETRIES, f"{text} was tried again after {[turn.state for turn in known]}"
            if [turn.superseded for turn in known] != [True] * (len(known) - 1) + [False]:
                yield Kind.RETRIES, f"{text}: superseded {[turn.superseded for turn in known]}"
        replies = Counter(row.text for row in self.rows.messages if row.role == AGENT)
        for reply, times in replies.items():
            if times > 1:
                yield Kind.TWICE, f"{reply!r} is stored {times} times"

    # --- promise 4: one turn at a time, and what it was sent

    def _runs(self) -> Iterator[tuple[Kind, str]]:
        runs = Counter(turn_id for turn_id, _ in groupby(self.begun, key=lambda row: row.turn_id))
        for turn_id, times in runs.items():
            if times > 1:
                yield Kind.SPLIT, f"turn {turn_id} stands in {times} places"
        for turn_id, rows in self.by_turn.items():
            turn = self.rows.turns.get(turn_id)
            if turn is None:
                yield Kind.SPLIT, f"seq {rows[0].seq} is of turn {turn_id}, which is not there"
                continue
            roles = [row.role for row in rows]
            if roles != ([USER, AGENT] if turn.state == "completed" else [USER]):
                yield Kind.SPLIT, f"turn {turn_id} is {turn.state} and has the roles {roles}"
            last = rows[-1].seq if turn.state not in OPEN else None
            if (turn.first_seq, turn.last_seq) != (rows[0].seq, last):
                says = f"turn {turn_id} says {turn.first_seq} to {turn.last_seq}"
                yield Kind.SPLIT, f"{says}, its messages are {[row.seq for row in rows]}"
        for turn in self.rows.turns.values():
            if turn.state == "completed" and turn.id not in self.by_turn:
                yield Kind.SPLIT, f"turn {turn.id} is completed and has no messages"

    def _contexts(self) -> Iterator[tuple[Kind, str]]:
        asked: dict[str, list[list[MessageRow]]] = {}
        for turn_id, rows in self.by_turn.items():
            asked.setdefault(rows[0].text, []).append(rows)
            turn = self.rows.turns.get(turn_id)
            if turn is None or turn.state != "completed" or rows[-1].role != AGENT:
                continue
            reply = parse_reply(rows[-1].text)
            call = self.calls.get(reply.call) if reply else None
            if call is None or call.text != rows[0].text:
                yield Kind.CONTEXT, f"{rows[0].text} was answered {rows[-1].text!r}, which was not said to it"
            elif not self._fits(call, rows[0]):
                yield Kind.CONTEXT, self._difference(call, rows[0])
        for call in self.told.calls:
            tries = asked.get(call.text, [])
            if call.at > self.since or not tries or any(self._fits(call, rows[0]) for rows in tries):
                continue
            start = min((send.start for send in self.told.sends.get(call.text, [])), default=0.0)
            if not self.told.maybe_deleted(start, self.until):
                yield Kind.CONTEXT, self._difference(call, tries[-1][0])

    def _fits(self, call: ModelCall, asked: MessageRow) -> bool:
        sent = list(call.lines)
        for line, sure in [*self._context(asked), (Line("user", asked.text), True)]:
            if sent and sent[0] == line:
                sent.pop(0)
            elif sure:
                return False
        return not sent

    def _difference(self, call: ModelCall, asked: MessageRow) -> str:
        wanted = [line for line, sure in self._context(asked) if sure]
        extra = [line for line in call.lines if line not in wanted]
        missing = [line for line in wanted if line not in call.lines]
        return (
            f"{asked.text} (seq {asked.seq}) by call {call.number}: beyond what precedes it {extra},"
            f" missing {missing}{'' if extra[1:] or missing else ', or in another order'}"
        )

    def _context(self, asked: MessageRow) -> Iterator[tuple[Line, bool]]:
        """What precedes a turn; False for what it may have been sent or not."""
        for turn_id, rows in self.by_turn.items():
            if (rows[0].seq or 0) >= (asked.seq or 0):
                return
            turn = self.rows.turns.get(turn_id)
            if turn is None:
                continue
            if turn.state == "completed":
                yield Line("user", rows[0].text), True
                yield from ((Line("assistant", row.text), True) for row in rows[1:])
            else:
                line = Line("user", rows[0].text, turn.reason or turn.state)
                known = self._was_superseded(rows[0], asked)
                if known is not True:
                    yield line, known is False

    def _was_superseded(self, row: MessageRow, asked: MessageRow) -> bool | None:
        """Whether the message was taken again before the asked one was run; None if nobody can tell."""
        later = [other for other in self.rows.messages if other.text == row.text and other.retry > row.retry]
        if not later:
            return False
        again = min(later, key=lambda other: other.retry)
        if again.seq is not None and again.seq <= (asked.seq or 0):
            return True
        # It came later. If it waited then, it may have been taken while the asked one waited, too, or between
        # two attempts of it.
        turn = self.rows.turns.get(asked.turn_id)
        ran_later = asked.ticket is not None or (turn is not None and turn.attempt > 1)
        return None if again.ticket is not None and ran_later else False

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
        for turn_id, rows in self.by_turn.items():
            sends = self.told.sends.get(rows[0].text, [])
            answered = [send.end for send in sends if send.answer and send.answer.turn_id == turn_id]
            if answered and min(answered) < latest:
                yield Kind.ORDER, f"{rows[0].text} was answered before those that precede it were sent"
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
            waits = any(row.waits for row in self.rows.messages if row.turn_id == turn.id)
            if waits != (turn.state == "submitted"):
                yield Kind.LEASE, f"turn {turn.id} is {turn.state}, its message waits: {waits}"

    def _marks(self) -> Iterator[tuple[Kind, str]]:
        for turn_id, rows in self.by_turn.items():
            turn = self.rows.turns.get(turn_id)
            if turn is None:
                continue
            wanted = None if turn.state in OPEN | {"completed"} else turn.reason or turn.state
            marks = {row.unanswered for row in rows}
            if marks != {SUPERSEDED if turn.superseded else wanted}:
                yield Kind.MARK, f"turn {turn_id} is {turn.state} ({turn.reason}), its messages say {marks}"

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
            reply = parse_reply(row.text) if row.role == AGENT else None
            text = reply.text if reply else row.text
            if place_of(text) != self.told.place or (row.role == AGENT) != (reply is not None):
                yield Kind.FOREIGN, f"seq {row.seq} is {row.text!r}"
            elif text not in self.told.sends:
                yield Kind.FOREIGN, f"nobody said {text!r}, seq {row.seq}"
        for call in self.told.calls:
            for line in call.lines:
                if place_of(_said(line)) != self.told.place or call.agent != self.told.place.agent:
                    yield Kind.FOREIGN, f"call {call.number} of {call.agent} for {call.text} was sent {line}"

    def _former_life(self) -> Iterator[tuple[Kind, str]]:
        for delete in self.told.deletes:
            if delete.found:
                yield from self._survivors(delete)

    def _survivors(self, delete: Delete) -> Iterator[tuple[Kind, str]]:
        old = self.told.surely_before(delete)
        if delete.end < self.since:
            for row in self.rows.messages:
                reply = parse_reply(row.text)
                if (reply.text if reply else row.text) in old:
                    yield Kind.FORMER_LIFE, f"{row.text!r} is stored as seq {row.seq}"
        for call in self.told.calls:
            if call.at > delete.end and self.told.surely_after(call.text, delete):
                for line in call.lines:
                    if _said(line) in old:
                        yield Kind.FORMER_LIFE, f"call {call.number} for {call.text} was sent {line}"

    def _answered(self) -> Iterator[tuple[Send, Answer]]:
        for sends in self.told.sends.values():
            for send in sends:
                if send.answer:
                    yield send, send.answer


def _said(line: Line) -> str:
    """The client's text that it is, or that it answers."""
    reply = parse_reply(line.text) if line.role == "assistant" else None
    return reply.text if reply else line.text
