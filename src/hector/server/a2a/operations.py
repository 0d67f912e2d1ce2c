"""What A2A's operations do, whatever carries them: from what a caller wrote to the JSON of the answer."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TypeAlias

from hector.domain.errors import ConflictError, InvalidError, NotFoundError, NotPausedError, TooLargeError
from hector.domain.events import EventId, Told, TurnEnded
from hector.domain.turns import Reason, Turn, TurnState
from hector.runtime.following import deleted
from hector.runtime.handle import TurnHandle
from hector.runtime.runtime import Runtime
from hector.server.a2a import wire
from hector.server.a2a.card import Cards
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.extensions import activated
from hector.server.a2a.incoming import SendRequest
from hector.server.a2a.listing import Listing
from hector.server.a2a.narrator import Narrator
from hector.server.a2a.push import Pushes
from hector.server.a2a.wire import Json
from hector.server.statuses import (
    BodyTooLargeError,
    NoAgentNamedError,
    NotCancelableError,
    TaskEndedError,
)

Events: TypeAlias = AsyncGenerator[tuple[str | None, Json], None]
"""A stream: each event with its place, where it has one, that a client names to go on from there."""


@dataclass(frozen=True, slots=True)
class LastEvent:
    """The last event that a client has."""

    place: EventId
    turn_id: str | None
    """A message that is tried again is another turn; None where the client does not say."""

    @classmethod
    def parse(cls, text: str) -> "LastEvent":
        """Of `TURN.attempt.number`, or without the turn. Raises `InvalidError`."""
        turn_id, _, number = text.rpartition(".")
        turn_id, _, attempt = turn_id.rpartition(".")
        place = EventId.parse(f"{attempt}.{number}")
        if place is None:
            raise InvalidError("last-event-id", "is not the id of an event of a stream, like TASK.1.5")
        return cls(place, turn_id or None)


class Operations:
    """Each for one agent and one user; answers are JSON in the caller's dialect."""

    def __init__(self, runtime: Runtime, cards: Cards, *, default_agent: str | None = None) -> None:
        """`default_agent`: serves who names none; where there is one agent alone, that does anyway."""
        self._runtime = runtime
        self._cards = cards
        self._default_agent = default_agent
        self.push = Pushes(runtime)
        self.listing = Listing(runtime)

    def agent_for(self, name: str | None) -> str:
        """The named agent, else the default one. Raises `NotFoundError`."""
        name = name or self._runtime.default_agent(self._default_agent)
        if name is None:
            raise NoAgentNamedError(self._runtime.agents)
        return self._runtime.agent(name).name

    def activate(self, agent: str, dialect: Dialect, asked: tuple[str, ...]) -> tuple[str, ...]:
        """The extensions that this caller gets of those they ask for. Raises `ExtensionRequiredError`."""
        return activated(self._runtime.agent(agent), dialect, asked)

    async def send(self, agent: str, user_id: str, asked: SendRequest) -> Json:
        """The task at its end, or as it stands for who does not want to wait."""
        # Who does not wait may subscribe, and wants to see the reply grow.
        handle = await self._submit(agent, user_id, asked, stream=asked.at_once)
        turn = await (self._as_it_stands(handle) if asked.at_once else handle.result())
        if asked.history:
            turn = await self._with_all_messages(turn)
        return {"task": wire.task(asked.dialect, turn, history=asked.history)}

    async def stream(
        self, agent: str, user_id: str, asked: SendRequest, *, after: LastEvent | None = None
    ) -> Events:
        """The task, the reply as the model writes it, the end."""
        handle = await self._submit(agent, user_id, asked, stream=True)
        # Of a run that has ended the handle knows the end alone. What came behind its pause is another's.
        if handle.repeated and after and handle.feed.ended and not (await handle.result()).state.paused:
            # Where its session was deleted meanwhile, the handle tells that.
            with suppress(NotFoundError):
                handle = await self._runtime.listen(agent, user_id, handle.turn_id)
        return self._narrate(handle, asked.dialect, after)

    async def subscribe(
        self, agent: str, user_id: str, turn_id: str, dialect: Dialect, *, after: LastEvent | None = None
    ) -> Events:
        """The rest of a stream that was broken off, or all of it for who names no place in it.

        A2A 1.0 has a paused task be watched until it goes on, and a task's end be read, and not streamed: it
        raises `TaskEndedError`.
        """
        handle = await self._runtime.listen(agent, user_id, turn_id)
        if dialect is Dialect.V1 and after is None:
            turn = await self._runtime.turn(agent, user_id, turn_id)
            if turn.state.terminal:
                raise TaskEndedError(turn_id, turn.state)
            if turn.state.paused:
                return self._narrate_on(turn, dialect)
        return self._narrate(handle, dialect, after)

    async def task(
        self, agent: str, user_id: str, turn_id: str, dialect: Dialect, *, history: int = 0
    ) -> Json:
        return wire.task(dialect, await self._runtime.turn(agent, user_id, turn_id), history=history)

    async def cancel(self, agent: str, user_id: str, turn_id: str, dialect: Dialect) -> Json:
        """Raises `NotCancelableError`."""
        turn = await self._runtime.cancel(agent, user_id, turn_id)
        if turn.state is not TurnState.CANCELED:
            raise NotCancelableError(turn.id, turn.state)
        return wire.task(dialect, turn)

    def extended_card(self, agent: str, reached: str, dialect: Dialect) -> Json:
        """`reached` is the URL under which the caller reached this server. Raises `NoExtendedCardError`."""
        return self._cards.extended(agent, reached, dialect)

    async def _submit(self, agent: str, user_id: str, asked: SendRequest, *, stream: bool) -> TurnHandle:
        if asked.push:
            await self.push.check(agent, asked.push, asked.push_place)
        try:
            return await self._runtime.send(
                agent,
                user_id,
                asked.message,
                message_id=asked.message_id,
                session_id=asked.context_id,
                task_id=asked.task_id,
                stream=stream,
                push=asked.push,
            )
        except TooLargeError as error:
            whole = error.field == "message"
            raise _renamed(error, asked, BodyTooLargeError if whole else TooLargeError) from None
        except InvalidError as error:
            raise _renamed(error, asked, InvalidError) from None
        except (ConflictError, NotPausedError) as error:
            error.field = asked.own_words(error.field or "")
            raise

    async def _as_it_stands(self, handle: TurnHandle) -> Turn:
        if not handle.feed.ended:
            turn = await self._runtime.turn(handle.key.agent_id, handle.key.user_id, handle.turn_id)
            # What has ended may have done so for another message that answered it, or after this one's pause.
            if not (turn.state.terminal and handle.message_id):
                return turn
        return await handle.result()

    async def _with_all_messages(self, turn: Turn) -> Turn:
        """A turn that has just ended brings only what it said last."""
        if turn.reason == Reason.SESSION_DELETED:
            return turn
        return await self._runtime.turn(turn.key.agent_id, turn.key.user_id, turn.id)

    async def _narrate(self, handle: TurnHandle, dialect: Dialect, last: LastEvent | None) -> Events:
        after = last.place if last and last.turn_id in (None, handle.turn_id) else None
        narrator = Narrator(dialect, handle.key, handle.turn_id, after=after)
        state = TurnState.SUBMITTED if handle.waiting else TurnState.WORKING
        if handle.repeated:
            turn = await self._as_it_stands(handle)
            state = turn.state
            waits = state.paused and bool(handle.message_id)
            if after is None and (state.terminal or handle.feed.ended or (state.paused and not waits)):
                yield None, narrator.whole(turn)
                return
            if waits:  # its turn has not come yet to go on with this message
                state = TurnState.SUBMITTED
        # How the run ended comes at its place; told here, it would pass for the end.
        over = state.terminal or state.paused
        yield None, narrator.opening(TurnState.WORKING if over else state)
        if last and not after:
            # The task that it was told of failed, and this is another for the same message.
            for piece in narrator.begin_anew():
                yield None, piece
        async with aclosing(_told_by(narrator, handle)) as events:
            async for event in events:
                yield event

    async def _narrate_on(self, paused: Turn, dialect: Dialect) -> Events:
        """The paused task, and when somebody has answered what it tells until it stops again."""
        key = paused.key
        narrator = Narrator(dialect, key, paused.id)
        yield None, narrator.whole(paused)
        await self._runtime.until_gone_on(paused)
        try:
            handle = await self._runtime.listen(key.agent_id, key.user_id, paused.id)
        except NotFoundError:
            for piece in narrator.tell(Told(TurnEnded(deleted(key, paused.id)))):
                yield None, piece
            return
        async with aclosing(_told_by(narrator, handle)) as events:
            async for event in events:
                yield event


async def _told_by(narrator: Narrator, handle: TurnHandle) -> Events:
    async with aclosing(handle.told()) as events:
        async for told in events:
            pieces = list(narrator.tell(told))
            for number, piece in enumerate(pieces, 1):
                # A client that got the first of two pieces alone is told both again.
                place = f"{handle.turn_id}.{told.id}" if told.id and number == len(pieces) else None
                yield place, piece


def _renamed(error: InvalidError, asked: SendRequest, made: type[InvalidError]) -> InvalidError:
    field = error.field or ""
    return made(asked.own_words(field), str(error).removeprefix(f"{field}: "))
