"""Summaries: texts that stand for the messages of a session up to a sequence number, which are kept."""

from dataclasses import dataclass
from typing import Protocol

from hector.domain.ids import SessionKey
from hector.domain.memory import Summary, Tail, TailLimit


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a summary is made of: a session as it stands, but for the turn that runs."""

    incarnation: str
    """Of the session: another one under the same id is not the same."""
    tail: Tail


class SummaryStore(Protocol):
    """Where summaries stand, beside the messages that they cover."""

    async def snapshot(self, key: SessionKey, limit: TailLimit) -> Snapshot | None:
        """None if there is no such session."""
        ...

    async def add_summary(
        self, key: SessionKey, incarnation: str, made_from: Summary | None, summary: Summary
    ) -> bool:
        """Keep a summary if the session is the same, and its latest is still the one that this was made from.

        Run again after an unknown outcome it is kept once, and the answer is the same.
        """
        ...

    async def tail(self, key: SessionKey, before: int | None, limit: TailLimit) -> Tail:
        """The latest summary and the newest messages after it, below that seq."""
        ...


class Summarizer(Protocol):
    """Makes summaries of sessions; it may take long, and costs a call of a model or several."""

    async def summarize(self, store: SummaryStore, key: SessionKey) -> int:
        """How many messages are covered that were not; 0 if there was nothing to do.

        What was done before it was broken off stays. Raises `ModelError`, `StorageError`.
        """
        ...
