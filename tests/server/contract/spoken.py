"""A2A as a client speaks it, over each transport alike: an operation, what it is asked, what is answered.

Whatever carries them, questions and answers are the JSON of one version of A2A (`Words`), and every answer is
held against that version's own definitions on its way.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias
from urllib.parse import quote

import grpc
import httpx
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tests.server.contract.serving import Served

Json: TypeAlias = dict[str, Any]
Headers: TypeAlias = Mapping[str, str]
"""A2A's service parameters and what else HTTP has in headers, and gRPC in metadata."""

TRANSPORTS = ("HTTP+JSON", "JSONRPC", "GRPC")


class Ask(NamedTuple):
    """What HTTP+JSON sends."""

    method: str
    path: str
    """Below the agent's URL."""
    query: Mapping[str, str] = {}
    body: Json | None = None


class Words(Protocol):
    """One version of A2A. Operations have the names of its JSON-RPC methods, params are JSON-RPC's."""

    number: str
    service: str
    """Of gRPC."""

    def ask(self, operation: str, params: Json) -> Ask: ...

    def call(self, operation: str, params: Json) -> tuple[str, Message, type[Message]]:
        """GRPC's method, the request, and what is answered."""
        ...

    def by_rest(self, operation: str, answer: Json) -> Json:
        """Raises `AssertionError` where it is not as this version has it, as all of these do."""
        ...

    def by_rpc(self, operation: str, answer: Any) -> Json: ...

    def by_grpc(self, operation: str, answer: Message) -> Json: ...


@dataclass
class Refusal(Exception):  # noqa: N818 - as A2A calls it: an answer
    """An error in whichever shape, read."""

    code: int | str
    """JSON-RPC's or HTTP's number, gRPC's word."""
    message: str
    details: Mapping[str, Json]
    """By the names of google.rpc's types."""
    headers: Headers

    @property
    def reason(self) -> str:
        return str(self.details["ErrorInfo"]["reason"])

    @property
    def domain(self) -> str:
        return str(self.details["ErrorInfo"]["domain"])

    @property
    def fields(self) -> list[str]:
        return [each["field"] for each in self.details.get("BadRequest", {}).get("fieldViolations", ())]


class Transport(Protocol):
    """One agent, as a client of one version has it over one transport."""

    name: str

    async def __call__(self, operation: str, params: Json | None = None, **headers: str) -> Json:
        """Raises `Refusal`. Headers have `_` for `-`."""
        ...

    def events(
        self, operation: str, params: Json | None = None, **headers: str
    ) -> AsyncGenerator[Json, None]: ...


async def told(stream: AsyncGenerator[Json, None]) -> list[Json]:
    """All of a stream that ends."""
    async with aclosing(stream):
        return [event async for event in stream]


async def refusal(asking: Any) -> Refusal:
    """Of a call, or of a stream."""
    try:
        answer = await (told(asking) if isinstance(asking, AsyncGenerator) else asking)
    except Refusal as error:
        return error
    raise AssertionError(f"this was answered: {answer}")


def speak(served: Served, words: Words, transport: str, *, agent: str = "a") -> Transport:
    kinds: dict[str, type[_Rest | _Rpc | _Grpc]] = {"HTTP+JSON": _Rest, "JSONRPC": _Rpc, "GRPC": _Grpc}
    return kinds[transport](served, words, agent)


class _OverHttp:
    def __init__(self, served: Served, words: Words, agent: str) -> None:
        self._http, self._words = served.http, words
        self._url = f"/v1/agents/{agent}"

    def _headers(self, more: Headers) -> dict[str, str]:
        named = {"a2a-version": self._words.number} | {
            name.replace("_", "-"): value for name, value in more.items()
        }
        return {name: value for name, value in named.items() if value != "-"}


class _Rest(_OverHttp):
    name = "HTTP+JSON"

    async def __call__(self, operation: str, params: Json | None = None, **headers: str) -> Json:
        answer = await self._http.send(self._request(operation, params, headers))
        if answer.status_code != 200:
            raise _refused_by_rest(answer)
        return self._words.by_rest(operation, answer.json())

    async def events(
        self, operation: str, params: Json | None = None, **headers: str
    ) -> AsyncGenerator[Json, None]:
        answer = await self._http.send(self._request(operation, params, headers), stream=True)
        async with aclosing(answer):
            if answer.status_code != 200:
                await answer.aread()
                raise _refused_by_rest(answer)
            async for data in _sse(answer):
                yield self._words.by_rest(operation, data)

    def _request(self, operation: str, params: Json | None, headers: Headers) -> httpx.Request:
        ask = self._words.ask(operation, params or {})
        return self._http.build_request(
            ask.method,
            f"{self._url}/{ask.path}",
            params=ask.query,
            json=ask.body,
            headers=self._headers(headers),
        )


class _Rpc(_OverHttp):
    name = "JSONRPC"

    async def __call__(self, operation: str, params: Json | None = None, **headers: str) -> Json:
        answer = await self._http.send(self._request(operation, params, headers))
        return self._words.by_rpc(operation, self._result(answer, answer.json()))

    async def events(
        self, operation: str, params: Json | None = None, **headers: str
    ) -> AsyncGenerator[Json, None]:
        answer = await self._http.send(self._request(operation, params, headers), stream=True)
        async with aclosing(answer):
            if not answer.headers["content-type"].startswith("text/event-stream"):
                await answer.aread()
                self._result(answer, answer.json())
                raise AssertionError("neither a stream nor an error")
            async for data in _sse(answer):
                yield self._words.by_rpc(operation, self._result(answer, data))

    def _request(self, operation: str, params: Json | None, headers: Headers) -> httpx.Request:
        envelope = {"jsonrpc": "2.0", "id": "an id", "method": operation}
        body = envelope if params is None else envelope | {"params": params}
        return self._http.build_request("POST", self._url, json=body, headers=self._headers(headers))

    def _result(self, response: httpx.Response, answer: Json) -> Any:
        """Raises `Refusal`."""
        # Who may not call is told so before the call is read.
        assert answer["id"] == "an id" or (answer["id"] is None and response.status_code == 401)
        assert answer["jsonrpc"] == "2.0"
        (kind,) = answer.keys() - {"jsonrpc", "id"}
        if kind == "result":
            return answer["result"]
        error = answer["error"]
        assert set(error) == {"code", "message", "data"}
        raise Refusal(error["code"], error["message"], _by_type(error["data"]), response.headers)


class _Grpc:
    name = "GRPC"

    def __init__(self, served: Served, words: Words, agent: str) -> None:
        self._channel, self._words, self._agent = served.channel, words, agent

    async def __call__(self, operation: str, params: Json | None = None, **headers: str) -> Json:
        method, request, made = self._words.call(operation, params or {})
        call = self._channel.unary_unary(
            f"/{self._words.service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=made.FromString,
        )
        try:
            answer: Message = await call(request, metadata=self._metadata(headers))
        except grpc.aio.AioRpcError as error:
            raise _refused_by_grpc(error) from None
        return self._words.by_grpc(operation, answer)

    async def events(
        self, operation: str, params: Json | None = None, **headers: str
    ) -> AsyncGenerator[Json, None]:
        method, request, made = self._words.call(operation, params or {})
        call = self._channel.unary_stream(
            f"/{self._words.service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=made.FromString,
        )(request, metadata=self._metadata(headers))
        try:
            async for answer in call:
                yield self._words.by_grpc(operation, answer)
        except grpc.aio.AioRpcError as error:
            raise _refused_by_grpc(error) from None
        finally:
            call.cancel()

    def _metadata(self, more: Headers) -> tuple[tuple[str, str], ...]:
        named = {"a2a-version": self._words.number, "agent-name": self._agent} | {
            name.replace("_", "-").lower(): value for name, value in more.items()
        }
        return tuple((name, value) for name, value in named.items() if value != "-")


def path(template: str, params: Json) -> str:
    """With what stands in it taken out of the params."""
    for name in list(params):
        if f"{{{name}}}" in template:
            template = template.replace(f"{{{name}}}", quote(params.pop(name), safe=""))
    return template


async def _sse(answer: httpx.Response) -> AsyncGenerator[Json, None]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    async for line in answer.aiter_lines():
        assert not line.startswith("event: error"), "a stream broke"
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def _by_type(details: list[Json]) -> Mapping[str, Json]:
    found = {each["@type"].removeprefix("type.googleapis.com/google.rpc."): each for each in details}
    assert len(found) == len(details)
    return found


def _refused_by_rest(answer: httpx.Response) -> Refusal:
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    if isinstance(error["code"], int):  # Hector's own word, for who names no version
        assert error["code"] == answer.status_code
    assert error["status"] in grpc.StatusCode.__members__
    return Refusal(answer.status_code, error["message"], _by_type(error["details"]), answer.headers)


def _refused_by_grpc(error: grpc.aio.AioRpcError) -> Refusal:
    trailing = dict(error.trailing_metadata() or ())
    rich = status_pb2.Status()
    packed = trailing.get("grpc-status-details-bin", b"")
    assert isinstance(packed, bytes)
    rich.ParseFromString(packed)
    assert (rich.code, rich.message) == (error.code().value[0], error.details())
    details: dict[str, Json] = {}
    for each in rich.details:
        name = each.type_url.removeprefix("type.googleapis.com/google.rpc.")
        detail = getattr(error_details_pb2, name)()
        assert each.Unpack(detail)
        details[name] = MessageToDict(detail)
    return Refusal(error.code().name, rich.message, details, {})
