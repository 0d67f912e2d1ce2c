"""Token counts, offline: exact where a model's tokenizer is public, elsewhere an estimate."""

import functools
import re
from dataclasses import dataclass, field
from typing import Literal, Protocol, cast

from hector.domain.memory import TokenCounter
from hector.domain.tokens import pieces

Encoding = Literal["o200k_base", "cl100k_base"]

UNKNOWN_PERCENT = 120
"""In percent of o200k_base: most other vocabularies are smaller, so they need more tokens for a text."""
_BELIEVED = range(80, 301)
"""Percent. What a provider reports beyond that is of something else: a part of the request, or more."""

_O200K = re.compile(r"(chatgpt-4o|gpt-4o|gpt-4\.[15]|gpt-([5-9]|1\d)|gpt-oss|o\d)(?![a-z0-9])")
_CL100K = re.compile(r"(gpt-4|gpt-3\.5|gpt-35|text-embedding-)")


def counter_for(model_name: str) -> TokenCounter:
    """The counter for a model by the name its provider gives it: `gpt-4o`, `openai:gpt-4o`, `qwen2.5`."""
    # Gateways put a provider before the name, and fine-tuned models have their own after it.
    names = re.split(r"[:/]", model_name.lower())
    if any(map(_O200K.match, names)):
        return BpeCounter("o200k_base")
    if any(map(_CL100K.match, names)):
        return BpeCounter("cl100k_base")
    return LearntCounter(BpeCounter("o200k_base"))


@dataclass(frozen=True, slots=True)
class BpeCounter:
    """Counts as one of OpenAI's public encodings does. The text must be storable (`check_storable`)."""

    encoding: Encoding

    def count(self, text: str) -> int:
        return _tokenizer(self.encoding).count(text)

    def cut(self, text: str, tokens: int) -> str:
        taken, left = 0, tokens
        for piece in pieces(text):
            encoded = _tokenizer(self.encoding).encode(piece)
            if len(encoded) > left:
                return self._cut_within(text[:taken], encoded, left, tokens)
            taken, left = taken + len(piece), left - len(encoded)
        return text

    def _cut_within(self, before: str, encoded: list[int], left: int, tokens: int) -> str:
        for end in range(left, 0, -1):
            # None where the tokens end inside of a character.
            start = _tokenizer(self.encoding).decode(encoded[:end])
            # A start by itself may be split otherwise than as a part of its text.
            if start is not None and self.count(before + start) <= tokens:
                return before + start
        return before


@dataclass(slots=True)
class LearntCounter:
    """An estimate: another counter's tokens times a factor, rounded up.

    The factor follows what the provider reports; what was counted before stays as it was.
    """

    counter: TokenCounter
    percent: int = UNKNOWN_PERCENT
    _learnt: bool = field(default=False, init=False, compare=False)

    def learn(self, counted: int, reported: int) -> None:
        """That what the other counter takes for so many tokens is so many to the provider."""
        seen = -(-reported * 100 // counted)
        if seen in _BELIEVED:
            # The first is better than a guess; those after it correct one another.
            self.percent = (3 * self.percent + seen) // 4 if self._learnt else seen
            self._learnt = True

    def count(self, text: str) -> int:
        return -(-self.counter.count(text) * self.percent // 100)

    def cut(self, text: str, tokens: int) -> str:
        return self.counter.cut(text, tokens * 100 // self.percent)


class _Tokenizer(Protocol):
    def count(self, text: str, /) -> int: ...
    def encode(self, text: str, /) -> list[int]: ...
    def decode(self, tokens: list[int], /) -> str | None: ...


@functools.cache
def _tokenizer(encoding: Encoding) -> _Tokenizer:
    # 20 to 50 ms and 35 to 70 MB, so only for the encodings that are used, and not before.
    from rs_bpe import openai  # noqa: PLC0415

    return cast(_Tokenizer, getattr(openai, encoding)())
