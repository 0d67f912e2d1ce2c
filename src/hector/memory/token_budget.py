"""The newest part of a session that fits a number of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hector.domain.memory import Tail, TailLimit, TokenCounter
from hector.domain.messages import Message, ModelMessage, Text, ToolMessage, UserMessage
from hector.domain.tokens import MESSAGE_TOKENS
from hector.memory.context import (
    SUMMARY_HEAD,
    Exchange,
    Said,
    Unit,
    marker,
    summary_message,
    units,
    with_marker,
)

CUT = " [... cut]"
"""Ends a text of which only the start is sent."""
PAGE = 500
"""Messages read at most: a bound for sessions of messages so short that the budget hardly bounds them."""


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """The summary and the newest messages before the turn's own, in at most `budget` tokens.

    The first message that does not fit is cut, and nothing before it is sent. Of a call's results the texts
    are cut, the longest first; where no room is left for them, the call is not sent either.
    """

    budget: int
    counter: TokenCounter

    @property
    def limit(self) -> TailLimit:
        return TailLimit(messages=PAGE, tokens=self.budget)

    def select(self, tail: Tail, own: Sequence[Message]) -> Sequence[Message]:
        left = self.budget
        head: list[Message] = []
        if tail.summary and (summary := self._summary(tail.summary.text, left - MESSAGE_TOKENS)):
            head = [summary]
            left -= MESSAGE_TOKENS + self.counter.count(summary.text)
        chosen: list[Message] = []
        for unit in reversed(units(tail.messages)):
            cost = unit.tokens + self._marker_tokens(unit)
            if cost > left:
                chosen[:0] = self._shortened(unit, left)
                break
            chosen[:0] = unit.messages
            left -= cost
        return [*head, *chosen, *own]

    def _marker_tokens(self, unit: Unit) -> int:
        reason = unit.unanswered if isinstance(unit, Said) else None
        return self.counter.count(marker(reason)) if reason else 0

    def _shortened(self, unit: Unit, tokens: int) -> Sequence[Message]:
        if isinstance(unit, Exchange):
            return self._shortened_exchange(unit, tokens)
        room = tokens - MESSAGE_TOKENS - self._marker_tokens(unit)
        text = self._cut(unit.message.text, room)
        if text is None:
            return ()
        # Thinking, data and files are left out: no start of them is of use.
        kind = UserMessage if isinstance(unit.message, UserMessage) else ModelMessage
        return (with_marker(kind((Text(text),)), unit.unanswered),)

    def _shortened_exchange(self, exchange: Exchange, tokens: int) -> Sequence[Message]:
        share = _share(exchange.result_tokens, tokens - exchange.asking_tokens)
        results: list[ToolMessage] = []
        for message, cost in zip(exchange.results, exchange.result_tokens, strict=True):
            if cost <= share:
                results.append(message)
                continue
            text = self._cut(message.result.text, share - MESSAGE_TOKENS)
            if text is None:
                return ()
            results.append(ToolMessage(replace(message.result, text=text)))
        return (exchange.asking, *results)

    def _summary(self, text: str, tokens: int) -> UserMessage | None:
        if self.counter.count(SUMMARY_HEAD + text) <= tokens:
            return summary_message(text)
        cut = self._cut(text, tokens, head=SUMMARY_HEAD)
        return summary_message(cut) if cut else None

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
