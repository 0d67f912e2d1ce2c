"""Which messages of a session a summary covers next, and how they read to the model that writes it; pure."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, assert_never

from hector.domain.memory import Compaction, Tail, TokenCounter
from hector.domain.messages import Data, File, Message, Part, StoredMessage, Text, UserMessage
from hector.domain.tokens import pieces
from hector.memory.context import Exchange, Said, Unit, cost, units

_RESULT_CHARACTERS = 4000
"""Of a tool's result: the start of a long one says what it was."""
_LONGEST = 8
"""Characters for each token of a call, some two calls: of a longer message the middle is left out."""


class Chunk(NamedTuple):
    """What one call of the model adds to the summary."""

    text: str
    through_seq: int | None
    """What is covered then; None in the middle of a message."""


def is_due(tail: Tail, compaction: Compaction, counter: TokenCounter, *, messages: int) -> bool:
    """The session has come above the threshold, or has so many messages that it is read no further."""
    if len(tail.messages) >= messages:
        return True
    summary = tail.summary.tokens if tail.summary else 0
    return summary + sum(cost(unit, counter) for unit in units(tail.messages)) > compaction.due_above


def last_to_cover(
    messages: Sequence[StoredMessage], counter: TokenCounter, *, tokens: int, kept: int
) -> int | None:
    """The seq of the last message to be covered, so that at most so many tokens and messages are left.

    Between two turns if that can be, else within one, but never between a call and its result; and never the
    newest message. None where nothing can be covered.
    """
    ends = list(_ends(messages, counter))
    fitting = [end for end in ends if end.tokens_left <= tokens and end.messages_left <= kept]
    between_turns = next((end for end in fitting if end.of_turn), None)
    chosen = between_turns or next(iter(fitting), None) or (ends[-1] if ends else None)
    return chosen.seq if chosen else None


def chunks(
    messages: Sequence[StoredMessage], through_seq: int, counter: TokenCounter, *, tokens: int
) -> Iterator[Chunk]:
    """What is said up to there, oldest first, in parts of about so many tokens."""
    covered = [stored for stored in messages if (stored.seq or 0) <= through_seq]
    found = sorted(units(covered), key=_last)
    text, size = "", 0
    for number, unit in enumerate(found):
        for place, part in enumerate(_parts(_told(unit, tokens * _LONGEST), counter, tokens)):
            taken = counter.count(part)
            if text and size + taken > tokens:
                yield Chunk(text, None if place else _covered_before(found, number))
                text, size = "", 0
            text, size = f"{text}\n\n{part}" if text else part, size + taken
    yield Chunk(text, through_seq)


class _End(NamedTuple):
    """Where a summary may end."""

    seq: int
    of_turn: bool
    """A turn ends there, too."""
    tokens_left: int
    messages_left: int


def _ends(messages: Sequence[StoredMessage], counter: TokenCounter) -> Iterator[_End]:
    found = sorted(units(messages), key=_last)
    newest = found[-1].seqs[0] if found else None
    left = sum(cost(unit, counter) for unit in found)
    begun = closed = 0
    starts = sorted(unit.seqs[0] for unit in found)
    for number, (one, other) in enumerate(pairwise(messages), 1):
        seq = one.seq or 0
        if newest is not None and seq >= newest:
            return
        while begun < len(starts) and starts[begun] <= seq:
            begun += 1
        while closed < len(found) and _last(found[closed]) <= seq:
            left -= cost(found[closed], counter)
            closed += 1
        if begun == closed:  # no unit has begun and not ended
            yield _End(seq, one.turn_id != other.turn_id, left, len(messages) - number)


def _last(unit: Unit) -> int:
    # The results stand in their calls' order, whatever the order that they came in.
    return max(unit.seqs)


def _covered_before(found: Sequence[Unit], number: int) -> int | None:
    """The last seq before that unit, if all up to there has been told."""
    if number == 0:
        return None
    seq = _last(found[number - 1])
    return seq if all(unit.seqs[0] > seq for unit in found[number:]) else None


def _told(unit: Unit, longest: int) -> str:
    match unit:
        case Said(message=UserMessage()):
            return f"User: {_ends_of(_words(unit.messages[0]), longest)}"
        case Said():
            return f"Assistant: {_ends_of(_words(unit.messages[0]), longest)}"
        case Exchange(asking=asking, results=results):
            said = [f"Assistant: {asking.text}"] if asking.text else []
            calls = [f"Assistant calls {call.name}: {call.arguments}" for call in asking.calls]
            answers = [f"{each.result.name} answers: {_start(each.result.text)}" for each in results]
            return "\n".join([*said, *calls, *answers])
        case _:
            assert_never(unit)


def _words(message: Message) -> str:
    return "\n".join(words for part in message.parts if (words := _words_of(part)))


def _words_of(part: Part) -> str:
    match part:
        case Text(text=text):
            return text
        case Data(value=value):
            return json.dumps(value, ensure_ascii=False)
        case File():
            return f"[file {part.name or part.url or part.media_type or 'without a name'}]"
        case _:
            return ""


def _start(text: str) -> str:
    return text if len(text) <= _RESULT_CHARACTERS else f"{text[:_RESULT_CHARACTERS]} [...]"


def _ends_of(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest // 2]} [...] {text[-(longest // 2) :]}"


def _parts(text: str, counter: TokenCounter, tokens: int) -> Iterator[str]:
    """The text in parts of at most so many tokens."""
    for piece in pieces(text):
        rest = piece
        while rest:
            part = counter.cut(rest, tokens) or rest[:1]
            yield part
            rest = rest[len(part) :]
