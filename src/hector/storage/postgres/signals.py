"""PostgreSQL: LISTEN and NOTIFY."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy import Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY

from hector.storage.operations import Statement, Step
from hector.storage.postgres.connection import PostgresConnection
from hector.storage.server.dedicated import Dedicated

_SEND_WITHIN = 5.0
"""Seconds after which nobody is helped by a signal."""
_LAST_WORDS = 2.0
"""Seconds for what was told just before the store is closed."""
_NOTIFY = Statement(
    text("SELECT pg_catalog.pg_notify(:channel, topic) FROM pg_catalog.unnest(:topics) AS topic").bindparams(
        bindparam("channel", type_=Text), bindparam("topics", type_=ARRAY(Text))
    )
)


class PostgresSignals:
    """Implements `Signals`, on the connection that beats.

    Each statement is a transaction of its own: one that notifies takes a lock of the whole server while it
    commits, which no turn is to wait for.
    """

    def __init__(self, dedicated: Dedicated[PostgresConnection]) -> None:
        self._dedicated = dedicated
        self._heard: list[Callable[[str | None], None]] = []
        self._topics: dict[str, None] = {}
        """To be told: each once, in their order."""
        self._telling: asyncio.Task[None] | None = None
        self.prompt = False
        dedicated.attach(self._set_up, self._lost)

    def tell(self, topic: str) -> None:
        self._topics[topic] = None
        if self._telling is None:
            # It begins when the loop comes round, and takes what is there by then.
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    def listen(self, heard: Callable[[str | None], None]) -> None:
        self._heard.append(heard)
        self._dedicated.keep()

    async def close(self) -> None:
        if telling := self._telling:
            await asyncio.wait((telling,), timeout=_LAST_WORDS)
            telling.cancel()
            await asyncio.wait((telling,))

    async def _tell(self) -> None:
        try:
            while self._topics:
                topics, self._topics = [*self._topics], {}
                await self._dedicated.run(partial(self._notify, topics), _SEND_WITHIN)
        finally:
            self._telling = None

    async def _notify(self, topics: Sequence[str], connection: PostgresConnection) -> None:
        await connection.run([Step(_NOTIFY, {"channel": _channel(connection.schema), "topics": topics})])

    async def _set_up(self, connection: PostgresConnection) -> None:
        lost = partial(self._dedicated.lose, connection)
        await connection.listen(_channel(connection.schema), self._pass_on, lost)
        self.prompt = True
        self._pass_on(None)

    def _pass_on(self, topic: str | None) -> None:
        for heard in self._heard:
            heard(topic)

    def _lost(self) -> None:
        self.prompt = False


def _channel(schema: str) -> str:
    """Channels are the whole database's, and a schema's name may be longer than theirs."""
    return f"hector_{hashlib.sha256(schema.encode()).hexdigest()[:16]}"
