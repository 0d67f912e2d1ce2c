"""Listening to turns that run, or wait, in other processes."""

from hector.domain.errors import OutcomeUnknownError, StorageError, StoreUnavailableError
from hector.domain.events import EventStore
from hector.domain.ids import SessionKey
from hector.domain.turns import Reason, Turn, TurnState
from hector.runtime.feed import TurnFeed
from hector.runtime.wakes import Bell, Wakes

_POLL_FIRST, _POLL_LAST = 0.005, 0.25
"""Seconds between looks, doubled from the first to the last."""
_POLL_STREAM = 0.05
"""... to the next look after one that found something new: more comes in batches."""
_POLL_SIGNALED = 2.0
"""... where the database tells when there is something new."""


async def follow(
    store: EventStore, wakes: Wakes, feed: TurnFeed, key: SessionKey, turn_id: str, message_id: str
) -> None:
    """Tell the feed what the turn tells, until the run of that message ends."""
    try:
        with wakes.bell(turn_id) as bell:
            feed.end(await _to_the_end(store, wakes, bell, feed, key, turn_id, message_id))
    except StorageError as error:
        if not wakes.closed:
            error = OutcomeUnknownError(f"{error}; the message is safe to repeat under its id")
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
    while not wakes.closed:
        bell.clear()
        progress = await store.progress(key.agent_id, key.user_id, turn_id, feed.place)
        if progress is None:
            return deleted(key, turn_id)
        turn = progress.turn
        before = feed.place
        if not (turn and _still_waits(turn, message_id)):
            feed.begin(progress.attempt)
            for told in progress.events:
                feed.relay(told)
            if turn and (turn.state.terminal or turn.state.paused):
                return turn
        if feed.place != before:
            pause = _POLL_STREAM
        rung = await bell.wait(pause)
        longest = _POLL_SIGNALED if wakes.prompt else _POLL_LAST
        pause = _POLL_FIRST if rung else min(pause * 2, longest)
    raise StoreUnavailableError("this server stops; repeat the message under its id to get its answer")


def deleted(key: SessionKey, turn_id: str) -> Turn:
    """What is left to say of a turn whose session is gone."""
    return Turn(turn_id, key, TurnState.CANCELED, Reason.SESSION_DELETED, "the session was deleted meanwhile")


def _still_waits(turn: Turn, message_id: str) -> bool:
    """The turn has not come yet to this message."""
    return any(stored.seq is None and stored.message_id == message_id for stored in turn.messages)
