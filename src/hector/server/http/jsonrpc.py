"""A2A over JSON-RPC 2.0, the methods of 1.0 and of 0.3: one URL for each agent."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from hector.domain.errors import InvalidError, NotFoundError
from hector.domain.messages import JsonValue
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.fields import Fields, kind_of
from hector.server.a2a.incoming import SendRequest, read_send
from hector.server.a2a.operations import LONGEST_HISTORY, Events, LastEvent, Operations
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

T = TypeVar("T")

_HTTP_STATUSES = frozenset({401, 403, 413, 415, 500, 503})
"""What proxies and clients act upon. Others come with 200, for only then do clients read what they say."""


class JsonRpc:
    def __init__(self, operations: Operations, *, body_limit: int) -> None:
        self._operations = operations
        self._body_limit = body_limit

    async def call(self, request: Request) -> Response:
        """POST to an agent's URL."""
        exchange = exchange_of(request)
        agent: str = request.path_params["agent"]
        self._operations.check_agent(agent)
        check_media_type(exchange.headers.get(b"content-type"))
        envelope = _read_envelope(parse_json(await read_body(request, self._body_limit)), exchange)
        exchange.read_version()
        streaming = _find(_STREAMING, envelope.method, exchange.version)
        if streaming:
            asked = self._asked(agent, exchange, envelope, streaming.dialect)
            results = _results(await streaming.run(asked), asked)
            return EventStream(results, broken=partial(_broken, asked.id))
        unary = _find(_UNARY, envelope.method, exchange.version)
        if unary is None:
            raise _unknown(envelope.method, exchange.version)
        asked = self._asked(agent, exchange, envelope, unary.dialect)
        return exchange.answer(_result(asked, await unary.run(asked)))

    def _asked(self, agent: str, exchange: Exchange, envelope: "_Envelope", dialect: Dialect) -> "_Asked":
        return _Asked(
            self._operations,
            agent,
            exchange.caller.user_id,
            dialect,
            exchange.rpc_id,
            Fields(envelope.params, ""),
            exchange.last_event(),
            exchange.idempotency_key,
        )


def rpc_failure(error: Exception, call_id: RpcId) -> Response:
    http = status_of(error).http
    nobody_there = isinstance(error, NotFoundError) and error.kind == "agent"
    return json_response(
        _failure(error, call_id),
        status=http if http in _HTTP_STATUSES or nobody_there else 200,
        headers=error_headers(error),
    )


# ------------------------------------------------------------------------------------------ requests


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call, in the words of its dialect."""

    operations: Operations
    agent: str
    user_id: str
    dialect: Dialect
    id: RpcId
    params: Fields
    after: LastEvent | None
    idempotency_key: str | None

    def message(self) -> SendRequest:
        return read_send(self.params.values, version=self.dialect, idempotency_key=self.idempotency_key)

    def task_id(self) -> str:
        found = self.params.filled("id")
        if found is None:
            raise InvalidError("id", "is missing; wanted the id of a task")
        return found


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


def _result(asked: _Asked, value: JsonValue) -> Json:
    return {"jsonrpc": "2.0", "id": asked.id, "result": value}


async def _results(events: Events, asked: _Asked) -> AsyncGenerator[tuple[str | None, Json], None]:
    async with aclosing(events):
        async for place, event in events:
            yield place, _result(asked, _in(asked.dialect, event))


def _in(dialect: Dialect, answer: Json) -> JsonValue:
    """In 0.3 each object tells by its `kind` what it is; in 1.0 the field that holds it does."""
    return answer if dialect is Dialect.V1 else next(iter(answer.values()))


def _failure(error: Exception, call_id: RpcId) -> Json:
    return {"jsonrpc": "2.0", "id": call_id, "error": rpc_error(error)}


def _broken(call_id: RpcId, error: Exception) -> bytes:
    return b"data: " + to_json(_failure(error, call_id)) + b"\n\n"


# ------------------------------------------------------------------------------------------- methods


@dataclass(frozen=True, slots=True)
class _Method(Generic[T]):
    dialect: Dialect
    run: Callable[[_Asked], Awaitable[T]]


_Methods: TypeAlias = Mapping[str, _Method[T]]


async def _send(asked: _Asked) -> JsonValue:
    answer = await asked.operations.send(asked.agent, asked.user_id, asked.message())
    return _in(asked.dialect, answer)


async def _stream(asked: _Asked) -> Events:
    return await asked.operations.stream(asked.agent, asked.user_id, asked.message(), after=asked.after)


async def _subscribe(asked: _Asked) -> Events:
    return await asked.operations.subscribe(
        asked.agent, asked.user_id, asked.task_id(), asked.dialect, after=asked.after
    )


async def _get(asked: _Asked) -> JsonValue:
    history = asked.params.count("historyLength") or 0
    if history > LONGEST_HISTORY:
        raise InvalidError("historyLength", f"wanted a whole number from 0 to {LONGEST_HISTORY}")
    return await asked.operations.task(
        asked.agent, asked.user_id, asked.task_id(), asked.dialect, history=history
    )


async def _cancel(asked: _Asked) -> JsonValue:
    return await asked.operations.cancel(asked.agent, asked.user_id, asked.task_id(), asked.dialect)


_UNARY: _Methods[JsonValue] = {
    "SendMessage": _Method(Dialect.V1, _send),
    "GetTask": _Method(Dialect.V1, _get),
    "CancelTask": _Method(Dialect.V1, _cancel),
    "message/send": _Method(Dialect.V03_JSON, _send),
    "tasks/get": _Method(Dialect.V03_JSON, _get),
    "tasks/cancel": _Method(Dialect.V03_JSON, _cancel),
}
_STREAMING: _Methods[Events] = {
    "SendStreamingMessage": _Method(Dialect.V1, _stream),
    "SubscribeToTask": _Method(Dialect.V1, _subscribe),
    "message/stream": _Method(Dialect.V03_JSON, _stream),
    "tasks/resubscribe": _Method(Dialect.V03_JSON, _subscribe),
}


def _find(methods: _Methods[T], name: str, version: Dialect | None) -> _Method[T] | None:
    """Of the version that the caller named, or of either, for no name is in both."""
    method = methods.get(name)
    return method if method and _is_of(method.dialect, version) else None


def _is_of(dialect: Dialect, version: Dialect | None) -> bool:
    return version is None or (dialect is Dialect.V1) == (version is Dialect.V1)


def _unknown(name: str, version: Dialect | None) -> MethodNotFoundError:
    dialects = {known: method.dialect for known, method in _UNARY.items()}
    dialects |= {known: method.dialect for known, method in _STREAMING.items()}
    if name in dialects and version is not None:
        return MethodNotFoundError(
            f"method {name} is not of A2A {version.value[:3]}, which the request names (A2A-Version)"
        )
    served = sorted(known for known, dialect in dialects.items() if _is_of(dialect, version))
    return MethodNotFoundError(f"no such method (served: {', '.join(served)})")
