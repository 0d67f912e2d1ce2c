"""What is deleted after its time, whoever runs."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from hector.domain.agents import Agent
from hector.domain.errors import StorageError
from hector.domain.events import EventStore
from hector.engine.defects import describe_defect

logger = logging.getLogger(__name__)

_INTERVAL = 60.0
"""Seconds. Each replica does it, and finds little that another has left."""


_TIDIES_WITHIN = 1.0
"""Seconds."""


async def keep_house(agents: Iterable[tuple[Agent, EventStore]]) -> None:
    """Until it is cancelled."""
    mine = list(agents)
    while True:
        await asyncio.sleep(_INTERVAL)
        for agent, store in mine:
            await forget_events(agent, store)


async def tidy_up(agents: Iterable[tuple[Agent, EventStore]]) -> None:
    """Once, and not for long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_TIDIES_WITHIN):
            for agent, store in agents:
                await forget_events(agent, store)


async def forget_events(agent: Agent, store: EventStore) -> None:
    """What is kept for streams of turns that ended long ago."""
    try:
        await store.forget_events(agent.name, agent.turns.event_retention)
    except StorageError as error:
        logger.debug("old events of agent %s are not deleted now: %s", agent.name, error)
    except Exception as error:  # noqa: BLE001  # the next time may be better, and nobody waits for it
        logger.error("old events could not be deleted:\n%s", describe_defect(error))  # noqa: TRY400
