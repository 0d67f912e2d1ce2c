"""The newest part of a session that fits a number of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hector.domain.memory import Compaction, Selection, Sent, Tail, TailLimit, TokenCounter
from hector.domain.messages import ModelMessage, Text, ToolMessage, UserMessage
from hector.domain.tokens import MESSAGE_TOKENS
from hector.memory.context import (
    SUMMARY_HEAD,
    Exchange,
    Unit,
    marker_cost,
    sent,
    summary_message,
    units,
    with_marker,
)

CUT = " [... cut]"
"""Ends a text of which only the start is sent."""
PAGE = 500
"""Messages read at most, unless the budget has room for more of the smallest."""


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """The summary and the newest messages before the turn's own, in at most `budget` tokens.

    The first message that does not fit is cut, and nothing before it is sent. Of a call's results the texts
    are cut, the longest first; where no room is left for them, the call is not sent either.
    """

    budget: int
    counter: TokenCounter
    compaction: Compaction | None = None

    @property
    def limit(self) -> TailLimit:
        # What was superseded, and what of a turn was not answered, is read and takes no tokens.
        return TailLimit(messages=max(PAGE, self.budget // MESSAGE_TOKENS), tokens=self.budget)

    def select(self, tail: Tail) -> Selection:
        left = self.budget
        head: list[Sent] = []
        text = tail.summary.text if tail.summary else ""
        if text and (summary := self._summary(text, left - MESSAGE_TOKENS)):
            head = [summary]
            left -= summary.tokens
        chosen: list[Sent] = []
        overflowed = len(tail.messages) >= self.limit.messages
        for unit in reversed(units(tail.messages)):
            marked = marker_cost(unit, self.counter)
            if unit.tokens + marked > left:
                chosen[:0] = self._shortened(unit, left)
                overflowed = True
                break
            chosen[:0] = sent(unit, marker_tokens=marked)
            left -= unit.tokens + marked
        return Selection([*head, *chosen], overflowed)

    def _shortened(self, unit: Unit, tokens: int) -> Sequence[Sent]:
        if isinstance(unit, Exchange):
            return self._shortened_exchange(unit, tokens)
        marked = marker_cost(unit, self.counter)
        text = self._cut(unit.message.text, tokens - MESSAGE_TOKENS - marked)
        if text is None:
            return ()
        # Thinking, data and files are left out: no start of them is of use.
        kind = UserMessage if isinstance(unit.message, UserMessage) else ModelMessage
        message = with_marker(kind((Text(text),)), unit.unanswered)
        return (Sent(message, MESSAGE_TOKENS + self.counter.count(text) + marked, unit.seqs, cut=True),)

    def _shortened_exchange(self, exchange: Exchange, tokens: int) -> Sequence[Sent]:
        share = _share(exchange.result_tokens, tokens - exchange.asking_tokens)
        asking, *whole = sent(exchange)
        results: list[Sent] = []
        for message, each in zip(exchange.results, whole, strict=True):
            if each.tokens <= share:
                results.append(each)
                continue
            text = self._cut(message.result.text, share - MESSAGE_TOKENS)
            if text is None:
                return ()
            cut = ToolMessage(replace(message.result, text=text))
            results.append(Sent(cut, MESSAGE_TOKENS + self.counter.count(text), each.seqs, cut=True))
        return (asking, *results)

    def _summary(self, text: str, tokens: int) -> Sent | None:
        """In at most so many, and those of a message."""
        needed = self.counter.count(SUMMARY_HEAD + text)
        if needed <= tokens:
            return Sent(summary_message(text), MESSAGE_TOKENS + needed)
        cut = self._cut(text, tokens, head=SUMMARY_HEAD)
        if cut is None:
            return None
        return Sent(summary_message(cut), MESSAGE_TOKENS + self.counter.count(SUMMARY_HEAD + cut), cut=True)

    def _cut(self, text: str, tokens: int, *, head: str = "") -> str | None:
        """The start of the text and the marker: with the head at most `tokens` tokens. None without room."""
        room = tokens - self.counter.count(head) - self.counter.count(CUT)
        while room > 0 and (start := self.counter.cut(text, room)):
            # Texts that are put together may be split otherwise than each by itself.
            excess = self.counter.count(f"{head}{start}{CUT}") - tokens
            if excess <= 0:
                return start + CUT
            room -= excess
        return None


def _share(costs: Sequence[int], tokens: int) -> int:
    """The most that each may take so that all fit: what the small ones leave goes to the others."""
    left = tokens
    for position, cost in enumerate(sorted(costs)):
        share = left // (len(costs) - position)
        if cost > share:
            return share
        left -= cost
    return max(costs)
