"""Listening to turns that run, or wait, in other processes."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from typing import Any
from weakref import WeakValueDictionary

from hector.domain.errors import (
    CallerError,
    NotPausedError,
    OutcomeUnknownError,
    StorageError,
    StoreUnavailableError,
    WaitedTooLongError,
)
from hector.domain.events import EventStore, Told
from hector.domain.ids import SessionKey
from hector.domain.messages import StoredMessage
from hector.domain.turns import Reason, Turn, TurnState, TurnStore
from hector.runtime.feed import TurnFeed
from hector.runtime.unknown import defect
from hector.runtime.wakes import Bell, Wakes, session_topic

ANSWER_WITHIN = 30.0
"""Seconds of the store's silence after which whoever waits is told so."""
_POLL_FIRST, _POLL_LAST = 0.005, 0.25
"""Seconds between looks, doubled from the first to the last."""
_POLL_STREAM = 0.05
"""... to the next look after one that found something new: more comes in batches."""
_POLL_SIGNALED = 2.0
"""... where the database tells when there is something new."""


class FollowedFeed(TurnFeed):
    """Of a turn that runs, or waits, elsewhere. The store is asked for news only while somebody listens."""

    def __init__(self, follow: Callable[["FollowedFeed"], asyncio.Task[None]]) -> None:
        super().__init__()
        self._follow = follow
        self._following: asyncio.Task[None] | None = None
        self._listeners = 0

    async def result(self) -> Turn:
        with self._listening():
            return await super().result()

    async def told(self) -> AsyncGenerator[Told, None]:
        with self._listening():
            async with aclosing(super().told()) as events:
                async for told in events:
                    yield told

    @contextmanager
    def _listening(self) -> Iterator[None]:
        self._listeners += 1
        if not self.ended and (self._following is None or self._following.done()):
            self._following = self._follow(self)
        try:
            yield
        finally:
            self._listeners -= 1
            if not self._listeners and self._following:
                self._following.cancel()
                self._following = None


class Followers:
    """What this process follows of the turns that run, or wait, in others."""

    def __init__(
        self,
        store: EventStore,
        wakes: Wakes,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._store, self._wakes, self._spawn = store, wakes, spawn
        self._feeds: WeakValueDictionary[tuple[str, str], FollowedFeed] = WeakValueDictionary()
        """By turn and message id, as long as somebody holds them."""
        self.followed: Counter[SessionKey] = Counter()
        """How many turns."""

    def cares_for(self, key: SessionKey) -> bool:
        return self.followed[key] > 0

    def feed(self, key: SessionKey, turn_id: str, message_id: str) -> FollowedFeed:
        """One for all who listen to it here."""
        place = turn_id, message_id
        feed = self._feeds.get(place)
        if feed is None or feed.ended:
            feed = FollowedFeed(lambda feed: self._spawn(self.follow(key, *place, feed)))
            self._feeds[place] = feed
        return feed

    async def follow(self, key: SessionKey, turn_id: str, message_id: str, feed: TurnFeed) -> None:
        """End the feed when the turn has ended, or the run of that message."""
        with self.following(key):
            try:
                await _follow(self._store, self._wakes, feed, key, turn_id, message_id)
            except Exception as error:  # noqa: BLE001  # whoever waits must be told something
                feed.fail(defect(error))

    @contextmanager
    def following(self, key: SessionKey) -> Iterator[None]:
        """Meanwhile somebody here cares for a turn of the session."""
        self.followed[key] += 1
        try:
            yield
        finally:
            self.followed[key] -= 1
            if not self.followed[key]:
                del self.followed[key]


async def _follow(
    store: EventStore, wakes: Wakes, feed: TurnFeed, key: SessionKey, turn_id: str, message_id: str
) -> None:
    """Tell the feed what the turn tells, until the run of that message ends."""
    try:
        # A session that is deleted tells of none of its turns.
        with wakes.bell(turn_id, session_topic(key)) as bell:
            feed.end(await _to_the_end(store, wakes, bell, feed, key, turn_id, message_id))
    except StorageError as error:
        if not wakes.closed:
            error = OutcomeUnknownError(f"{error}; the message is safe to repeat under its id")
        feed.fail(error)
    except CallerError as error:
        feed.fail(error)


async def _to_the_end(
    store: EventStore,
    wakes: Wakes,
    bell: Bell,
    feed: TurnFeed,
    key: SessionKey,
    turn_id: str,
    message_id: str,
) -> Turn:
    pause = _POLL_FIRST
    answered = time.monotonic()
    while not wakes.closed:
        bell.clear()
        before = feed.place
        try:
            progress = await store.progress(key.agent_id, key.user_id, turn_id, feed.place, message_id)
        except StorageError:
            if time.monotonic() - answered > ANSWER_WITHIN:
                raise
        else:
            answered = time.monotonic()
            if progress is None:
                return deleted(key, turn_id)
            turn = progress.turn
            if not (turn and _still_waits(turn, message_id)):
                feed.begin(progress.attempt)
                for told in progress.events:
                    feed.relay(told)
                if turn and (turn.state.terminal or turn.state.paused):
                    _check_reached(turn, message_id)
                    return turn
        if feed.place != before:
            pause = _POLL_STREAM
        rung = await bell.wait(pause)
        longest = _POLL_SIGNALED if wakes.prompt else _POLL_LAST
        pause = _POLL_FIRST if rung else min(pause * 2, longest)
    raise StoreUnavailableError("this server stops; repeat the message under its id to get its answer")


async def until_gone_on(store: TurnStore, wakes: Wakes, paused: Turn) -> None:
    """Return when a paused turn goes on, has ended or is gone. Raises `StorageError`."""
    answered = time.monotonic()
    with wakes.bell(paused.id, session_topic(paused.key)) as bell:
        while not wakes.closed:
            bell.clear()
            try:
                turn = await store.turn(paused.key.agent_id, paused.key.user_id, paused.id)
            except StorageError:
                if time.monotonic() - answered > ANSWER_WITHIN:
                    raise
            else:
                answered = time.monotonic()
                if turn is None or not turn.state.paused or _said(turn) != _said(paused):
                    return
            await bell.wait(_POLL_SIGNALED if wakes.prompt else _POLL_LAST)
    raise StoreUnavailableError("this server stops; subscribe again")


def _said(turn: Turn) -> list[StoredMessage]:
    """Without what waits to be said."""
    return [stored for stored in turn.messages if stored.seq is not None]


def deleted(key: SessionKey, turn_id: str) -> Turn:
    """What is left to say of a turn whose session is gone."""
    return Turn(turn_id, key, TurnState.CANCELED, Reason.SESSION_DELETED, "the session was deleted meanwhile")


def _check_reached(turn: Turn, message_id: str) -> None:
    """Raise `CallerError` where the message waited for this turn, which was paused, and does so no longer."""
    if not message_id or any(stored.message_id == message_id for stored in turn.messages):
        return
    if turn.state.terminal:
        raise NotPausedError(turn.id, turn.state)
    raise WaitedTooLongError(turn.id)


def _still_waits(turn: Turn, message_id: str) -> bool:
    """The turn has not come yet to this message, and may."""
    return not turn.state.terminal and any(
        stored.seq is None and stored.message_id == message_id for stored in turn.messages
    )
