"""What the checker reports."""

from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.history import Place


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
    UNSTORED = "a tool was run before its call was stored"
    REPEATED = "a tool with side effects was run twice"
    RESULT = "the result of a call is not what its tool did"
    UNSAFE = "a turn that called tools with side effects may be run again"
    HARMLESS = "a turn is said to have had effects that it cannot have had"
    UNASKED = "a question to the user was lost, or made up"
    RUN_ON = "a turn was run on though its agent forbids it"


@dataclass(frozen=True, slots=True)
class Anomaly:
    kind: Kind
    place: Place | None
    what: str

    def __str__(self) -> str:
        where = f" in {'/'.join(self.place)}" if self.place else ""
        return f"{self.kind}{where}: {self.what}"
