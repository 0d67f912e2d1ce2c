"""A2A over plain HTTP: messages and tasks of one agent."""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from hector.domain.errors import InvalidError
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.fields import Fields
from hector.server.a2a.incoming import SendRequest, read_send
from hector.server.a2a.listing import LONGEST_HISTORY, PARAMETERS, in_query, read_list
from hector.server.a2a.operations import Events, Operations
from hector.server.http.body import check_media_type, parse_object, read_body
from hector.server.http.exchange import Exchange, exchange_of
from hector.server.http.responses import EventStream, error_event


class Rest:
    def __init__(self, operations: Operations, *, body_limit: int) -> None:
        self._operations = operations
        self._body_limit = body_limit

    async def send(self, request: Request) -> Response:
        """POST message:send."""
        exchange = exchange_of(request)
        agent, asked = await self._read(request, exchange)
        return exchange.answer(await self._operations.send(agent, exchange.caller.user_id, asked))

    async def stream(self, request: Request) -> Response:
        """POST message:stream."""
        exchange = exchange_of(request)
        agent, asked = await self._read(request, exchange)
        user_id = exchange.caller.user_id
        return _streamed(
            await self._operations.stream(agent, user_id, asked, after=exchange.last_event()), exchange
        )

    async def subscribe(self, request: Request) -> Response:
        """GET or POST tasks/{task}:subscribe."""
        exchange = exchange_of(request)
        tenant = await self._tenant(request)
        return _streamed(
            await self._operations.subscribe(
                agent_of(self._operations, request, exchange, tenant=tenant),
                exchange.caller.user_id,
                request.path_params["task"],
                _dialect(exchange),
                after=exchange.last_event(),
            ),
            exchange,
        )

    async def task(self, request: Request) -> Response:
        """GET tasks/{task}."""
        exchange = exchange_of(request)
        history = exchange.count("historyLength", 0, least=0, most=LONGEST_HISTORY) or 0
        return exchange.answer(
            await self._operations.task(
                agent_of(self._operations, request, exchange),
                exchange.caller.user_id,
                request.path_params["task"],
                _dialect(exchange),
                history=history,
            )
        )

    async def tasks(self, request: Request) -> Response:
        """GET tasks."""
        exchange = exchange_of(request)
        exchange.caller.check_browsing()
        agent, user_id = agent_of(self._operations, request, exchange), exchange.caller.user_id
        if exchange.version is Dialect.V1:
            asked = read_list(in_query(exchange.query))
            return exchange.answer(await self._operations.listing.page(agent, user_id, asked))
        if later := sorted(PARAMETERS & exchange.query.keys()):
            raise InvalidError(
                later[0], "belongs to lists of A2A 1.0; name that version (A2A-Version: 1.0), or leave it out"
            )
        return exchange.answer(await self._operations.listing.newest(agent, user_id))

    async def cancel(self, request: Request) -> Response:
        """POST tasks/{task}:cancel."""
        exchange = exchange_of(request)
        tenant = await self._tenant(request)
        return exchange.answer(
            await self._operations.cancel(
                agent_of(self._operations, request, exchange, tenant=tenant),
                exchange.caller.user_id,
                request.path_params["task"],
                _dialect(exchange),
            )
        )

    async def _tenant(self, request: Request) -> str | None:
        """In a body that holds nothing else that counts, and that most leave out."""
        if "agent" in request.path_params or request.method != "POST":
            return None
        body = await read_body(request, self._body_limit)
        return Fields(parse_object(body), "").text("tenant") if body else None

    async def _read(self, request: Request, exchange: Exchange) -> tuple[str, SendRequest]:
        """The agent, and what it is sent."""
        if "agent" in request.path_params:
            self._operations.agent_for(
                request.path_params["agent"]
            )  # before a body of megabytes is read in vain
        check_media_type(exchange.headers.get(b"content-type"))
        body = parse_object(await read_body(request, self._body_limit))
        asked = read_send(body, version=exchange.version, idempotency_key=exchange.idempotency_key)
        tenant = Fields(body, "").text("tenant")
        return agent_of(self._operations, request, exchange, tenant=tenant, dialect=asked.dialect), asked


def agent_of(
    operations: Operations,
    request: Request,
    exchange: Exchange,
    *,
    tenant: str | None = None,
    dialect: Dialect | None = None,
) -> str:
    """Named by the path; at the server's root by A2A 1.0's tenant, or the default one.

    Notes the extensions that the caller gets.
    """
    named = request.path_params.get("agent") or tenant or exchange.query.get("tenant")
    agent = operations.agent_for(named)
    exchange.activated = operations.activate(agent, dialect or _dialect(exchange), exchange.extensions)
    return agent


def _streamed(events: Events, exchange: Exchange) -> Response:
    broken = partial(error_event, numeric=exchange.numeric)
    return EventStream(events, broken=broken, headers=exchange.agreed())


def _dialect(exchange: Exchange) -> Dialect:
    # Without a version A2A means 0.3, whose JSON over HTTP is protobuf's.
    return exchange.version or Dialect.V03_PROTO
