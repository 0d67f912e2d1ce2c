"""Whether the session stores answer, for who asks often."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

_WITHIN = 2.0
"""Seconds in which the session stores must answer."""


class Asked(Protocol):
    async def not_ready(self) -> Sequence[str]:
        """Why requests would fail now; empty if they would not."""
        ...


class StoreCheck:
    """Asks the stores once at a time, so that probes of a database that hangs do not pile up in its pool."""

    def __init__(self, asked: Asked, within: float = _WITHIN) -> None:
        self._asked = asked
        self._within = within
        self._asking: asyncio.Future[Sequence[str]] | None = None
        self._deadline = 0.0

    async def problems(self) -> Sequence[str]:
        """Those that the stores tell; or, if a question has not been answered in time, just that."""
        now = asyncio.get_running_loop().time()
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._asked.not_ready())
            self._deadline = now + self._within
        asking = self._asking
        # Not cancelled when time is up: the next probe waits for the same answer.
        await asyncio.wait((asking,), timeout=max(0.0, self._deadline - now))
        if asking.done():
            return asking.result()
        return [f"the session stores have not answered within {self._within:g} s"]
