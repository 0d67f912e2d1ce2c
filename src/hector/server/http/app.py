"""The ASGI application: every request passes here once, and every error leaves here as JSON."""

import logging
import re
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from urllib.parse import unquote_to_bytes

from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route, Router
from starlette.types import Message, Receive, Scope, Send

from hector.config import ServerSection
from hector.domain.errors import HectorError, InvalidError
from hector.engine.defects import describe_defect
from hector.runtime.patience import Patience
from hector.runtime.runtime import Runtime
from hector.server.a2a.card import Cards
from hector.server.a2a.operations import Operations
from hector.server.a2a.signing import open_signer
from hector.server.entrance import Entrance
from hector.server.http.browse import Browse
from hector.server.http.cards import CardPages
from hector.server.http.exchange import Exchange
from hector.server.http.jsonrpc import JsonRpc, rpc_failure
from hector.server.http.openapi import OpenApi
from hector.server.http.origins import Origins, host_name
from hector.server.http.push import PushRest
from hector.server.http.readiness import StoreCheck
from hector.server.http.responses import error_response, json_response
from hector.server.http.rest import Rest
from hector.server.listening import address_of
from hector.server.statuses import MethodError, NoSuchPathError, VersionNotSupportedError, status_of

logger = logging.getLogger(__name__)

_AGENT = "/agents/{agent:segment}"
_PUBLIC_PATH = re.compile(r"(/agents/[^/]+)?/\.well-known/agent-card\.json|/openapi\.json")
_RPC_PATH = re.compile(r"/|/agents/[^/]+")
_A2A_WORDS = frozenset(
    {"message:send", "message:stream", "tasks", ".well-known", "extendedAgentCard", "card"}
)
"""The first segments of A2A's paths below an agent's URL."""
_PROBES = frozenset({"/health", "/ready"})


class Segment(Convertor[str]):
    """One part of a path, which may hold an encoded `/`: paths come here as `canonical_path` makes them."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return value.replace("%2F", "/").replace("%25", "%")

    def to_string(self, value: str) -> str:
        return _encode_segment(value)


register_url_convertor("segment", Segment())


class HectorApp:
    """Takes requests from the first moment on, and serves them once it has been given a runtime."""

    def __init__(self, server: ServerSection, entrance: Entrance, *, loopback: bool) -> None:
        """`loopback`: every address that the server listens on is this machine's own.

        Raises `ConfigError`.
        """
        self._server = server
        self._entrance = entrance
        self.grpc_port = 0
        """0 as long as it is not known."""
        self._stores: StoreCheck | None = None
        """None as long as they are being opened."""
        self._signer = open_signer(server)
        self._origins = Origins(server.host, server.base_url, loopback=loopback)
        self._routes = [
            Route("/health", self._health, methods=["GET"]),
            Route("/ready", self._ready, methods=["GET"]),
        ]
        self._router = Router(self._routes, redirect_slashes=False)

    def open(self, runtime: Runtime) -> None:
        """Serve its agents from now on."""
        cards = Cards(
            runtime,
            self._server.base_url,
            signs_in=self._entrance.tokens.required,
            pushes=runtime.pushes,
            default_agent=self._server.default_agent,
            grpc=self._grpc_address,
            sign=self._signer.sign if self._signer else None,
        )
        operations = Operations(runtime, cards, default_agent=self._server.default_agent)
        push = PushRest(operations, body_limit=self._server.limits.body)
        pages = CardPages(operations, cards)
        openapi = OpenApi(
            lambda: self._routes, base_url=self._server.base_url, signs_in=self._entrance.tokens.required
        )
        rest = Rest(operations, body_limit=self._server.limits.body)
        rpc = JsonRpc(operations, body_limit=self._server.limits.body)
        browse = Browse(runtime, cards)
        session = _AGENT + "/sessions/{session:segment}"
        # The most frequent first, for a route is found by trying one after another.
        self._routes[:0] = [
            *self._a2a_routes(_AGENT, rest, rpc, push, pages),
            Route(_AGENT + "/sessions", browse.sessions, methods=["GET"]),
            Route(session, browse.session, methods=["GET"]),
            Route(session, browse.delete, methods=["DELETE"]),
            Route("/agents", browse.agents, methods=["GET"]),
            *self._a2a_routes("", rest, rpc, push, pages),
            Route("/openapi.json", openapi.show, methods=["GET"]),
        ]
        self._router = Router(self._routes, redirect_slashes=False)
        self._stores = StoreCheck(runtime)
        self._entrance.open(operations)

    def _grpc_address(self, reached: str) -> str | None:
        """Behind a proxy the operator alone knows it."""
        if self._server.grpc_address or self._server.base_url or not self.grpc_port:
            return self._server.grpc_address
        return address_of(host_name(reached.partition("://")[2].encode("latin-1")), self.grpc_port)

    def _a2a_routes(
        self, agent: str, rest: Rest, rpc: JsonRpc, push: PushRest, cards: CardPages
    ) -> list[Route]:
        """Below an agent's URL; the server's own root has the same for its default agent."""
        return [
            Route(agent + "/message:send", rest.send, methods=["POST"]),
            Route(agent + "/message:stream", rest.stream, methods=["POST"]),
            Route(agent + "/tasks/{task:segment}:cancel", rest.cancel, methods=["POST"]),
            Route(agent + "/tasks/{task:segment}:subscribe", rest.subscribe, methods=["GET", "POST"]),
            Route(agent + "/tasks/{task:segment}", rest.task, methods=["GET"]),
            Route(agent + "/tasks", rest.tasks, methods=["GET"]),
            *push.routes(agent),
            Route(agent or "/", rpc.call, methods=["POST"]),
            Route(agent + "/.well-known/agent-card.json", cards.public, methods=["GET"]),
            Route(agent + "/extendedAgentCard", cards.extended, methods=["GET"]),
            Route(agent + "/card", cards.extended_of_0_3, methods=["GET"]),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "uvicorn is told to send nothing else"
        exchange = Exchange.of(scope)
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._serve(scope, receive, watched, exchange)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - the last stop: whatever went wrong, the caller gets an answer
            response = self._failed(scope, exchange, error)
            if not started:  # otherwise uvicorn cuts the connection, which tells that the answer is not whole
                await response(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        path = canonical_path(scope)
        exchange.rpc = scope["method"] == "POST" and bool(_RPC_PATH.fullmatch(path))
        self._origins.check(exchange.headers.get(b"host"), exchange.headers.get(b"origin"))
        if path not in _PROBES:
            self._entrance.check_stopping()
            # What is public tells how to sign in, and which versions are spoken.
            public = bool(_PUBLIC_PATH.fullmatch(path))
            if not public:
                exchange.caller = self._entrance.caller(exchange.headers.get(b"authorization"))
            if not exchange.rpc:  # which tells the id of the call with each fault
                with suppress(VersionNotSupportedError) if public else nullcontext():
                    exchange.read_version()
            if not self._entrance.is_open:
                await self._entrance.operations()
        routed = {**scope, "path": path, "root_path": "", "app": self, "hector.exchange": exchange}
        await self._router(routed, receive, send)

    def _failed(self, scope: Scope, exchange: Exchange, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            error = self._not_routed(scope)
        status = status_of(error)
        if status.http == 500:
            logger.error(
                "%s %s failed with a defect:\n%s", scope["method"], _shape(scope), describe_defect(error)
            )
        elif status.http == 503 and isinstance(error, HectorError):
            logger.warning("%s %s: %s", scope["method"], _shape(scope), error)
        if exchange.rpc:
            return rpc_failure(error, exchange.rpc_id)
        return error_response(error, numeric=exchange.numeric, media_type=exchange.media_type)

    def _not_routed(self, scope: Scope) -> HectorError:
        asked = {**scope, "path": canonical_path(scope), "root_path": ""}
        routes = (route for route in self._routes if route.matches(asked)[0] is not Match.NONE)
        allowed = sorted({method for route in routes for method in route.methods or ()})
        return MethodError(scope["method"], ", ".join(allowed)) if allowed else NoSuchPathError()

    async def _health(self, request: Request) -> Response:
        return json_response({"status": "up"})

    async def _ready(self, request: Request) -> Response:
        if problems := await self._problems():
            return json_response({"status": "not ready", "problems": list(problems)}, status=503)
        return json_response({"status": "ready"})

    async def _problems(self) -> Sequence[str]:
        if self._entrance.stopping:
            return ["the server is stopping"]
        if self._stores is None:
            return self._entrance.waits_for
        return await self._stores.problems()


def build_app(runtime: Runtime, server: ServerSection, *, loopback: bool) -> HectorApp:
    """The application, open."""
    app = HectorApp(server, Entrance(server, Patience(), loopback=loopback), loopback=loopback)
    app.open(runtime)
    return app


def canonical_path(scope: Scope) -> str:
    """The path for routing: one spelling for each URL, and an encoded `/` stays encoded.

    `/v1/agents/a/...`, `/agents/a/...`, A2A 0.3's `/v1/agents/a/v1/...` and A2A 1.0's `/a/...` with a tenant
    are one, so are `/v1/...` and `/...` at the root, and so are an agent's own URL with a slash at its end
    and without. Raises `InvalidError`.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.partition(b"?")[0]
    plain = b"%" not in path
    try:
        parts = path.decode().split("/") if plain else [_decode_segment(each) for each in path.split(b"/")]
    except UnicodeDecodeError:
        raise InvalidError("path", "is not UTF-8 where it is decoded") from None
    segments = parts[1:] or [""]
    if segments[0] == "v1":
        segments[:1] = [] if len(segments) > 1 else [""]
    if segments[0] == "agents":
        if len(segments) > 2 and segments[2] == "v1":
            del segments[2]
        if segments[2:] == [""]:
            del segments[2]
    elif len(segments) > 1:
        segments = _with_tenant(segments)
    if segments[-2:] == [".well-known", "agent.json"]:  # its name before 0.3
        segments[-1] = "agent-card.json"
    return "/" + "/".join(segments if plain else map(_encode_segment, segments))


def _with_tenant(segments: list[str]) -> list[str]:
    """A2A 1.0 has the tenant, which here is an agent, before its own paths."""
    if len(segments) > 2 and segments[1] == "v1":
        del segments[1]
    is_root = segments[0] in {"", "tasks", ".well-known"}
    return segments if is_root or segments[1] not in _A2A_WORDS else ["agents", *segments]


def _decode_segment(raw: bytes) -> str:
    return unquote_to_bytes(raw).decode()


def _encode_segment(text: str) -> str:
    return text.replace("%", "%25").replace("/", "%2F")


def _shape(scope: Scope) -> str:
    """A path for the log, without the ids in it, which are a caller's words."""
    last = str(scope["path"]).rpartition("/")[2]
    return f".../{last}" if last in {"message:send", "message:stream", "sessions", "agents"} else "request"
