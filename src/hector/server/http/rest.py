"""A2A over plain HTTP: messages and tasks of one agent."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from hector.domain.errors import ConflictError, InvalidError, NotFoundError, NotPausedError, TooLargeError
from hector.domain.events import EventId
from hector.domain.turns import Reason, Turn, TurnState
from hector.runtime.handle import TurnHandle
from hector.runtime.runtime import Runtime
from hector.server.a2a import wire
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.incoming import SendRequest, read_send
from hector.server.a2a.narrator import Narrator
from hector.server.a2a.wire import Json
from hector.server.http.body import check_media_type, parse_object, read_body
from hector.server.http.exchange import Exchange, exchange_of
from hector.server.http.responses import EventStream
from hector.server.statuses import BodyTooLargeError, NotCancelableError

_LONGEST_HISTORY = 10_000


class Rest:
    def __init__(self, runtime: Runtime, *, body_limit: int) -> None:
        self._runtime = runtime
        self._body_limit = body_limit

    async def send(self, request: Request) -> Response:
        """POST message:send: the task at its end, or as it stands for who does not want to wait."""
        exchange = exchange_of(request)
        agent: str = request.path_params["agent"]
        asked = await self._read(request, agent, exchange)
        handle = await self._submit(agent, exchange, asked, stream=False)
        turn = await (self._as_it_stands(handle) if asked.at_once else handle.result())
        if asked.history:
            turn = await self._with_all_messages(turn)
        return exchange.answer({"task": wire.task(asked.dialect, turn, history=asked.history)})

    async def stream(self, request: Request) -> Response:
        """POST message:stream: the task, the reply as the model writes it, the end."""
        exchange = exchange_of(request)
        agent: str = request.path_params["agent"]
        asked = await self._read(request, agent, exchange)
        after = _last_event(exchange)
        handle = await self._submit(agent, exchange, asked, stream=True)
        if handle.repeated and after:
            # Where its session was deleted meanwhile, the handle tells that.
            with suppress(NotFoundError):
                handle = await self._runtime.listen(agent, exchange.caller.user_id, handle.turn_id)
        return EventStream(self._narrate(handle, asked.dialect, after), numeric=exchange.numeric)

    async def subscribe(self, request: Request) -> Response:
        """The rest of a stream that was broken off, or all of it for who names no place in it."""
        exchange = exchange_of(request)
        after = _last_event(exchange)
        handle = await self._runtime.listen(
            request.path_params["agent"], exchange.caller.user_id, request.path_params["task"]
        )
        return EventStream(self._narrate(handle, _dialect(exchange), after), numeric=exchange.numeric)

    async def task(self, request: Request) -> Response:
        exchange = exchange_of(request)
        history = exchange.count("historyLength", 0, least=0, most=_LONGEST_HISTORY) or 0
        turn = await self._runtime.turn(
            request.path_params["agent"], exchange.caller.user_id, request.path_params["task"]
        )
        return exchange.answer(wire.task(_dialect(exchange), turn, history=history))

    async def cancel(self, request: Request) -> Response:
        exchange = exchange_of(request)
        turn = await self._runtime.cancel(
            request.path_params["agent"], exchange.caller.user_id, request.path_params["task"]
        )
        if turn.state is not TurnState.CANCELED:
            raise NotCancelableError(turn.id, turn.state)
        return exchange.answer(wire.task(_dialect(exchange), turn))

    async def _read(self, request: Request, agent: str, exchange: Exchange) -> SendRequest:
        self._runtime.agent(agent)  # before a body of megabytes is read in vain
        check_media_type(exchange.headers.get(b"content-type"))
        body = parse_object(await read_body(request, self._body_limit))
        key = exchange.headers.get(b"idempotency-key")
        return read_send(
            body, version=exchange.version, idempotency_key=key.decode("latin-1") if key else None
        )

    async def _submit(
        self, agent: str, exchange: Exchange, asked: SendRequest, *, stream: bool
    ) -> TurnHandle:
        try:
            return await self._runtime.send(
                agent,
                exchange.caller.user_id,
                asked.message,
                message_id=asked.message_id,
                session_id=asked.context_id,
                task_id=asked.task_id,
                stream=stream,
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
        if handle.feed.ended:
            return await handle.result()
        return await self._runtime.turn(handle.key.agent_id, handle.key.user_id, handle.turn_id)

    async def _with_all_messages(self, turn: Turn) -> Turn:
        """A turn that has just ended brings only what it said last."""
        if turn.reason == Reason.SESSION_DELETED:
            return turn
        return await self._runtime.turn(turn.key.agent_id, turn.key.user_id, turn.id)

    async def _narrate(
        self, handle: TurnHandle, dialect: Dialect, last: "_LastEvent | None"
    ) -> AsyncGenerator[tuple[str | None, Json], None]:
        after = last.place if last and last.turn_id in (None, handle.turn_id) else None
        narrator = Narrator(dialect, handle.key, handle.turn_id, after=after)
        state = TurnState.SUBMITTED if handle.waiting else TurnState.WORKING
        if handle.repeated:
            state = (await self._as_it_stands(handle)).state
            if after is None and (state.terminal or handle.feed.ended):
                yield None, narrator.whole(await handle.result())
                return
            if state.paused:  # its turn has not come yet to go on with this message
                state = TurnState.SUBMITTED
        yield None, narrator.opening(TurnState.WORKING if state.terminal else state)
        if last and not after:
            # The task that it was told of failed, and this is another for the same message.
            for piece in narrator.begin_anew():
                yield None, piece
        async with aclosing(handle.told()) as events:
            async for told in events:
                pieces = list(narrator.tell(told))
                for number, piece in enumerate(pieces, 1):
                    # A client that got the first of two pieces alone is told both again.
                    place = f"{handle.turn_id}.{told.id}" if told.id and number == len(pieces) else None
                    yield place, piece


@dataclass(frozen=True, slots=True)
class _LastEvent:
    """The last event that a client has."""

    place: EventId
    turn_id: str | None
    """A message that is tried again is another turn; None where the client does not say."""


def _last_event(exchange: Exchange) -> _LastEvent | None:
    named = exchange.headers.get(b"last-event-id")
    if not named:
        return None
    turn_id, _, number = named.decode("latin-1").rpartition(".")
    turn_id, _, attempt = turn_id.rpartition(".")
    place = EventId.parse(f"{attempt}.{number}")
    if place is None:
        raise InvalidError("last-event-id", "is not the id of an event of a stream, like TASK.1.5")
    return _LastEvent(place, turn_id or None)


def _dialect(exchange: Exchange) -> Dialect:
    # Without a version A2A means 0.3, whose JSON over HTTP is protobuf's.
    return exchange.version or Dialect.V03_PROTO


def _renamed(error: InvalidError, asked: SendRequest, made: type[InvalidError]) -> InvalidError:
    field = error.field or ""
    return made(asked.own_words(field), str(error).removeprefix(f"{field}: "))
