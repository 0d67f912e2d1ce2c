"""A2A over JSON-RPC 2.0, the methods of 1.0 and of 0.3: one URL for each agent."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from hector.domain.errors import CallerError, InvalidError, NotFoundError
from hector.domain.messages import JsonValue
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.fields import Fields, kind_of
from hector.server.a2a.methods import METHODS_OF_0_3, STREAMING, UNARY, Asked
from hector.server.a2a.operations import Events, Operations
from hector.server.a2a.wire import Json
from hector.server.http.body import check_media_type, parse_json, read_body
from hector.server.http.exchange import Exchange, RpcId, exchange_of
from hector.server.http.responses import EventStream, json_response, to_json
from hector.server.statuses import (
    MethodNotFoundError,
    NotARequestError,
    error_headers,
    rpc_error,
    status_of,
)

_HTTP_STATUSES = frozenset({401, 403, 413, 415, 500, 503})
"""What proxies and clients act upon. Others come with 200, for only then do clients read what they say."""


class JsonRpc:
    def __init__(self, operations: Operations, *, body_limit: int) -> None:
        self._operations = operations
        self._body_limit = body_limit

    async def call(self, request: Request) -> Response:
        """POST to an agent's URL, or to the server's own."""
        exchange = exchange_of(request)
        named: str | None = request.path_params.get("agent")
        if named is not None:
            self._operations.agent_for(named)
        check_media_type(exchange.headers.get(b"content-type"))
        envelope = _read_envelope(parse_json(await read_body(request, self._body_limit)), exchange)
        exchange.read_version()
        dialect, method = _find(envelope.method, exchange.version)
        params = Fields(envelope.params, "")
        asked = Asked(
            self._operations,
            self._operations.agent_for(named or params.text("tenant")),
            exchange.caller,
            dialect,
            params,
            exchange.last_event(),
            exchange.idempotency_key,
            exchange.reached,
        )
        exchange.activated = asked.activate(method, exchange.extensions)
        if streaming := STREAMING.get(method):
            try:
                results = _results(await streaming(asked), dialect, exchange.rpc_id)
            except CallerError as error:
                if dialect is Dialect.V1 or _http_status(error) != 200 or not _takes_events(exchange):
                    raise
                # Clients of 0.3 read no other answer to a method that streams.
                return Response(
                    _broken(exchange.rpc_id, error), 200, error_headers(error), "text/event-stream"
                )
            return EventStream(results, broken=partial(_broken, exchange.rpc_id), headers=exchange.agreed())
        answer = await UNARY[method](asked)
        bare = _bare(dialect, answer) if method in _WRAPPED else answer
        return exchange.answer(_result(bare, exchange.rpc_id))


def rpc_failure(error: Exception, call_id: RpcId) -> Response:
    return json_response(_failure(error, call_id), status=_http_status(error), headers=error_headers(error))


def _http_status(error: Exception) -> int:
    http = status_of(error).http
    nobody_there = isinstance(error, NotFoundError) and error.kind == "agent"
    return http if http in _HTTP_STATUSES or nobody_there else 200


# ------------------------------------------------------------------------------------------ requests


class _Envelope(NamedTuple):
    method: str
    params: Mapping[str, JsonValue]


def _read_envelope(value: JsonValue, exchange: Exchange) -> _Envelope:
    """Notes the call's id as soon as it is known, for every answer repeats it."""
    if isinstance(value, list):
        raise NotARequestError("body", "is an array; batches are not taken, so send one request at a time")
    if not isinstance(value, dict):
        raise NotARequestError("body", f"is {kind_of(value)}; wanted a JSON-RPC 2.0 request")
    call_id = value.get("id")
    if isinstance(call_id, bool) or not isinstance(call_id, str | int | None):
        raise NotARequestError("id", f"is {kind_of(call_id)}; wanted a string, a whole number or null")
    exchange.rpc_id = call_id
    if value.get("jsonrpc") != "2.0":
        raise NotARequestError("jsonrpc", 'wanted "2.0"')
    method = value.get("method")
    if not isinstance(method, str):
        raise NotARequestError("method", f"wanted a string, found {kind_of(method)}")
    params = value.get("params")
    if params is None:
        return _Envelope(method, {})
    if not isinstance(params, dict):
        raise InvalidError("params", f"wanted an object, found {kind_of(params)}")
    return _Envelope(method, params)


# ------------------------------------------------------------------------------------------- answers


def _result(value: JsonValue, call_id: RpcId) -> Json:
    return {"jsonrpc": "2.0", "id": call_id, "result": value}


async def _results(
    events: Events, dialect: Dialect, call_id: RpcId
) -> AsyncGenerator[tuple[str | None, Json], None]:
    async with aclosing(events):
        async for place, event in events:
            yield place, _result(_bare(dialect, event), call_id)


def _takes_events(exchange: Exchange) -> bool:
    return b"text/event-stream" in exchange.headers.get(b"accept", b"")


def _bare(dialect: Dialect, answer: Json) -> JsonValue:
    """In 0.3 each object tells by its `kind` what it is; in 1.0 the field that holds it does."""
    return answer if dialect is Dialect.V1 else next(iter(answer.values()), None)


def _failure(error: Exception, call_id: RpcId) -> Json:
    return {"jsonrpc": "2.0", "id": call_id, "error": rpc_error(error)}


def _broken(call_id: RpcId, error: Exception) -> bytes:
    return b"data: " + to_json(_failure(error, call_id)) + b"\n\n"


# ------------------------------------------------------------------------------------------- methods


_WRAPPED = frozenset({"SendMessage", "ListTaskPushNotificationConfigs", "DeleteTaskPushNotificationConfig"})
"""Whose answer has a field that tells what it holds, or nothing."""


def _find(name: str, version: Dialect | None) -> tuple[Dialect, str]:
    """The name tells the version; the caller may have named that, too. Raises `MethodNotFoundError`."""
    if name in METHODS_OF_0_3:
        dialect, method = Dialect.V03_JSON, METHODS_OF_0_3[name]
    elif name in UNARY or name in STREAMING:
        dialect, method = Dialect.V1, name
    else:
        served = sorted([*UNARY, *STREAMING] if version is not Dialect.V03_PROTO else [])
        served += sorted(METHODS_OF_0_3 if version is not Dialect.V1 else [])
        raise MethodNotFoundError(f"no such method (served: {', '.join(served)})")
    if version is not None and (version is Dialect.V1) != (dialect is Dialect.V1):
        raise MethodNotFoundError(
            f"method {name} is not of A2A {version.value[:3]}, which the request names (A2A-Version)"
        )
    return dialect, method
