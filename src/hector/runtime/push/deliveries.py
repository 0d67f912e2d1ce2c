"""Telling webhooks what became of their tasks: at least once, in order, for as long as it takes.

Each replica looks for configurations with something to be told, takes a few, and tells each what it has not
been told yet, one notice after another. What it did not get to is found in the store by itself or by others.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import urlsplit

from hector.domain.errors import StorageError
from hector.domain.ids import SessionKey
from hector.domain.notices import Claim, Due, Notice, Place, PushStore, PushTarget
from hector.domain.push import PushConfig
from hector.engine.defects import describe_defect
from hector.runtime.following import deleted
from hector.runtime.push.signature import notification_id, signed
from hector.runtime.push.targets import Targets
from hector.runtime.wakes import Bell

if TYPE_CHECKING:
    from hector.runtime.push.webhooks import Answer, Webhooks

logger = logging.getLogger(__name__)

_AT_ONCE = 32
"""Webhooks that one process waits for."""
_LOOK = 1.0
"""Seconds between looks, where there are configurations or other replicas."""
_IDLE_LOOK = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 600.0
"""Seconds, the most that is waited after a first failure, and after any."""
_LAST_ANSWERS = 5.0
"""Seconds that a stop waits for webhooks that were called already."""


class Body(NamedTuple):
    media_type: str
    content: bytes


class Write(Protocol):
    def __call__(self, config: PushConfig, notice: Notice, *, first: bool) -> Body | None:
        """What a configuration is told by a notice, the first of all or a later one; None: nothing."""
        ...


@dataclass(frozen=True, slots=True)
class PushSettings:
    targets: Targets
    keys: Sequence[bytes] = ()
    """Of signatures, the one that new receivers use first."""
    timeout: float = 15.0
    give_up_after: float = 24 * 3600.0


def pause_after(failures: int) -> float:
    """Seconds, anywhere between none and twice as many as the time before, so that those who failed together
    do not come again together.
    """
    return random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures, 20)))  # noqa: S311  # no secret


class Deliveries:
    """Of one store."""

    def __init__(
        self,
        store: PushStore,
        replica_id: Callable[[], str],
        settings: PushSettings,
        *,
        others: Callable[[], bool] = lambda: True,
        pause: Callable[[int], float] = pause_after,
    ) -> None:
        """`replica_id`: this process's, as long as it is taken for alive. `others`: there are other replicas.

        `pause`: how long to wait after so many failures in a row before.
        """
        self.settings = settings
        self._store, self._replica_id, self._others, self._pause = store, replica_id, others, pause
        self._bell = Bell()
        self._watched: set[str] = set()
        """Turns whose news are to be looked for at once."""
        self._telling: dict[PushTarget, asyncio.Task[None]] = {}
        self._farewells: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._write: Write | None = None
        self._made_webhooks: Webhooks | None = None

    def start(self, write: Write) -> None:
        self._write = write
        self._looking = asyncio.create_task(self._look_on())

    def watch(self, turn_id: str) -> None:
        """It has a configuration."""
        self._watched.add(turn_id)
        self._bell.ring()

    def changed(self, turn_id: str) -> None:
        """It is in another state, and that is stored."""
        if turn_id in self._watched:
            self._bell.ring()

    async def going(self, key: SessionKey) -> Sequence[tuple[str, PushConfig]]:
        """Whom to tell that a session is deleted, before it is."""
        return await self._store.open_pushes(key) if self._looking else ()

    def bid_farewell(self, key: SessionKey, going: Sequence[tuple[str, PushConfig]]) -> None:
        """Tell them once that their tasks were canceled: with the session all is gone that was kept."""
        for turn_id, config in going:
            target = PushTarget(key, turn_id, config.id)
            task = asyncio.create_task(self._bid_farewell(target, config))
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)

    async def stop(self, drain_timeout: float) -> None:
        """Call no further webhook; those that were called have a moment to answer."""
        if self._looking:
            self._looking.cancel()
            await asyncio.wait([self._looking])
            self._looking = None
        calls = {*self._telling.values(), *self._farewells}
        if calls:
            _, late = await asyncio.wait(calls, timeout=min(drain_timeout, _LAST_ANSWERS))
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._made_webhooks:
            await self._made_webhooks.close()
            self._made_webhooks = None

    @property
    def _webhooks(self) -> "Webhooks":
        if self._made_webhooks is None:
            # Its library is not needed by who has nothing to tell.
            from hector.runtime.push.webhooks import Webhooks  # noqa: PLC0415

            self._made_webhooks = Webhooks(self.settings.targets, timeout=self.settings.timeout)
        return self._made_webhooks

    # --- what there is to tell

    async def _look_on(self) -> None:
        while True:
            self._bell.clear()
            try:
                pause = await self._look()
            except StorageError as error:
                logger.debug("nobody knows what webhooks are to be told: %s", error)
                pause = _LOOK
            except Exception as error:  # noqa: BLE001  # without it no webhook would be told anything more
                _tell("a look for push notifications", error)
                pause = _LOOK
            await self._bell.wait(pause)

    async def _look(self) -> float:
        """Begin to tell what can be told; seconds until the next look."""
        room = _AT_ONCE - len(self._telling)
        if room <= 0:
            return _LOOK
        # Some of what is found is being told already.
        found = await self._store.due_pushes(self._replica_id(), _AT_ONCE)
        for due in found.due:
            if due.target not in self._telling and len(self._telling) < _AT_ONCE:
                self._watched.add(due.target.turn_id)
                self._telling[due.target] = asyncio.create_task(self._tell(due))
        if not found.open:
            self._watched.clear()
        return _LOOK if found.open or self._others() else _IDLE_LOOK

    async def _tell(self, due: Due) -> None:
        try:
            claim = await self._store.claim_push(due, self._replica_id())
            while claim:
                claim = await self._tell_one(claim)
            # What changed meanwhile was perhaps not seen, and others may have waited for room.
            self._bell.ring()
        except StorageError as error:
            # If the claim is ours, the next look finds it; not at once, for the webhook would be called anew.
            logger.debug("nobody knows what a webhook of task %s was told: %s", due.target.turn_id, error)
        finally:
            del self._telling[due.target]

    async def _tell_one(self, claim: Claim) -> Claim | None:
        """The claim with what is left; None where nothing is, or it is not ours any longer."""
        notice = claim.notices[0]
        try:
            answer = await self._call(claim.target, claim.config, notice, first=claim.first)
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001  # one notice that cannot be told is not to stop all others
            _tell("a push notification", error)
            await self._put_off(claim, "a defect of this server", 0.0)
            return None
        if answer is None or answer.taken:
            return await self._store.told_push(claim, notice.place)
        if answer.gone:
            logger.warning(
                "%s wants no more (410), and is told nothing more", _shown(claim.target, claim.config)
            )
            await self._store.end_push(claim)
        else:
            await self._put_off(claim, answer.why or f"status {answer.status}", answer.retry_after)
        return None

    async def _put_off(self, claim: Claim, why: str, at_least: float) -> None:
        delay = max(at_least, self._pause(claim.failures))
        shown = _shown(claim.target, claim.config)
        if await self._store.put_off_push(claim, delay, self.settings.give_up_after):
            # The first of a series, which may be long.
            tell = logger.debug if claim.failures else logger.warning
            tell("%s was not told: %s; trying again", shown, why)
        else:
            logger.warning(
                "%s was not told for %g s: %s; what happened until now is left out",
                shown,
                self.settings.give_up_after,
                why,
            )

    async def _call(
        self, target: PushTarget, config: PushConfig, notice: Notice, *, first: bool
    ) -> "Answer | None":
        """None where there is nothing to say."""
        body = self._write(config, notice, first=first) if self._write else None
        if body is None:
            return None
        headers = {
            "content-type": body.media_type,
            "user-agent": f"hector/{version('hector')}",
            **signed(
                self.settings.keys, notification_id(target, notice.place), int(time.time()), body.content
            ),
        }
        if config.token:
            headers["x-a2a-notification-token"] = config.token
        if config.schemes and config.credentials:
            headers["authorization"] = f"{config.schemes[0]} {config.credentials}"
        return await self._webhooks.post(config.url, headers, body.content)

    async def _bid_farewell(self, target: PushTarget, config: PushConfig) -> None:
        notice = Notice(Place.END, deleted(target.key, target.turn_id))
        try:
            answer = await self._call(target, config, notice, first=False)
        except Exception as error:  # noqa: BLE001  # nobody waits for it
            _tell("a last push notification", error)
            return
        if answer and not answer.taken:
            shown, why = _shown(target, config), answer.why or f"status {answer.status}"
            logger.warning("%s was not told that its session was deleted: %s", shown, why)


def _shown(target: PushTarget, config: PushConfig) -> str:
    """Without the path and query of its URL, which may be what keeps others from calling it."""
    return f"the webhook at {urlsplit(config.url).hostname} of task {target.turn_id}"


def _tell(what: str, error: Exception) -> None:
    """Without the error's own text, which may quote what was said."""
    logger.error("%s met a defect:\n%s", what, describe_defect(error))
