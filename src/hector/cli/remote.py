"""Talking to an agent of a server, Hector's or another that speaks A2A, by a2a-sdk's client."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import grpc
import httpx
from a2a.client import A2ACardResolver, Client, ClientCallContext, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError, AgentCardResolutionError
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
)
from a2a.utils.errors import A2AError

from hector.cli.exchange import Display
from hector.cli.remote_turn import RemoteTurn
from hector.domain.errors import HectorError, InvalidError
from hector.domain.events import TurnEnded
from hector.domain.ids import SessionKey
from hector.domain.turns import Turn

_CONNECTS_WITHIN = 10.0
"""Seconds."""
_RECONNECTS = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
"""Seconds before each try to go on with a stream that broke."""
_BINDINGS = ["JSONRPC", "HTTP+JSON", "GRPC"]


class RemoteError(HectorError):
    """What another server, or the way to it, had against a call."""


@dataclass(frozen=True, slots=True)
class Address:
    server: str
    """The URL of a Hector server; or of one agent, whatever serves it."""
    agent: str | None
    """Of the Hector server; None where the URL is the agent's own."""
    token: str | None = None


class RemoteAgent:
    """One agent, and the way to it."""

    def __init__(self, client: Client, card: AgentCard, address: Address) -> None:
        self.name = card.name
        self._client, self._address = client, address
        parameters = {"Authorization": f"Bearer {address.token}"} if address.token else None
        self._context = ClientCallContext(service_parameters=parameters)

    async def exchange(
        self, text: str, display: Display, *, session_id: str | None = None, task_id: str | None = None
    ) -> Turn:
        """The turn at its end, which the display has shown. Cancelled, it cancels the task.

        Raises `RemoteError`.
        """
        message = Message(
            message_id=str(uuid.uuid4()),
            context_id=session_id or "",
            task_id=task_id or "",
            role=Role.ROLE_USER,
            parts=[Part(text=text)],
        )
        told = RemoteTurn(SessionKey(self._address.agent or "", "", session_id or ""))
        try:
            sending = self._client.send_message(SendMessageRequest(message=message), context=self._context)
            await self._tell(sending, told, display)
            for pause in _RECONNECTS:
                if told.ended or not told.turn_id:
                    break
                await asyncio.sleep(pause)
                await self._go_on(told, display)
        except asyncio.CancelledError:
            if told.turn_id:
                with suppress(A2AError):
                    await self._client.cancel_task(CancelTaskRequest(id=told.turn_id), context=self._context)
            raise
        if not told.ended:
            raise RemoteError(self._lost(told))
        turn = told.turn()
        await display.show(TurnEnded(turn))
        return turn

    async def _tell(self, events: AsyncIterator[StreamResponse], told: RemoteTurn, display: Display) -> None:
        """As far as it comes: a stream that breaks once its task is known is gone on with by the caller."""
        try:
            async for event in events:
                for news in told.take(event):
                    await display.show(news)
        except (A2AError, grpc.RpcError) as error:
            if isinstance(error, A2AClientError) and told.turn_id:
                return
            raise RemoteError(self._explained(error)) from error

    async def _go_on(self, told: RemoteTurn, display: Display) -> None:
        """With its events from the start, or, where it has ended meanwhile, with how it did."""
        request = SubscribeToTaskRequest(id=told.turn_id)
        try:
            async for event in self._client.subscribe(request, context=self._context):
                for news in told.take(event):
                    await display.show(news)
        except A2AClientError:
            return
        except A2AError:
            await self._look(told)

    async def _look(self, told: RemoteTurn) -> None:
        try:
            task = await self._client.get_task(GetTaskRequest(id=told.turn_id), context=self._context)
        except A2AClientError:
            return
        except A2AError as error:
            raise RemoteError(self._explained(error)) from error
        list(told.take(StreamResponse(task=task)))

    def _lost(self, told: RemoteTurn) -> str:
        if told.turn_id:
            return (
                f"the connection to {self._address.server} is lost; task {told.turn_id} may go on there,"
                " and its answer is kept if it does"
            )
        return f"{self._address.server} sent no answer"

    def _explained(self, error: Exception) -> str:
        cause = error.__cause__
        if isinstance(cause, httpx.HTTPStatusError):
            return _refusal(cause.response, self._address)
        if isinstance(error, grpc.aio.AioRpcError):
            return f"{self._address.server}: {error.details()}"
        return f"{self._address.server}: {error}"


@asynccontextmanager
async def connected(address: Address) -> AsyncGenerator[RemoteAgent, None]:
    """Raises `RemoteError` and `InvalidError`."""
    base = address.server.rstrip("/")
    if urlsplit(base).scheme not in {"http", "https"}:
        raise InvalidError("--server", "wanted a URL that begins with http:// or https://")
    url = f"{base}/v1/agents/{quote(address.agent, safe='')}" if address.agent else base
    timeout = httpx.Timeout(None, connect=_CONNECTS_WITHIN)
    async with httpx.AsyncClient(timeout=timeout) as http:
        card = await _card(http, url, address)
        _check_hosts(card, address)
        config = ClientConfig(
            httpx_client=http,
            grpc_channel_factory=partial(_channel, urlsplit(base).scheme),
            supported_protocol_bindings=_BINDINGS,
        )
        try:
            client = ClientFactory(config).create(card)
        except ValueError as error:
            raise RemoteError(f"{url}: {error}") from None
        async with client:
            yield RemoteAgent(client, card, address)


async def _card(http: httpx.AsyncClient, url: str, address: Address) -> AgentCard:
    headers = {"Authorization": f"Bearer {address.token}"} if address.token else {}
    try:
        return await A2ACardResolver(http, url).get_agent_card(http_kwargs={"headers": headers})
    except AgentCardResolutionError as error:
        cause = error.__cause__
        if isinstance(cause, httpx.HTTPStatusError):
            raise RemoteError(_refusal(cause.response, address)) from None
        if isinstance(cause, httpx.RequestError):
            raise RemoteError(f"cannot reach {url}: {str(cause) or type(cause).__name__}") from None
        raise RemoteError(f"{url} has no agent card: {error}") from None


def _check_hosts(card: AgentCard, address: Address) -> None:
    """A token is for the server that the user named, wherever its card says that calls go."""
    named = urlsplit(address.server)
    for interface in card.supported_interfaces:
        place = _place(interface.url, named.scheme)
        if address.token and place.hostname != named.hostname:
            raise RemoteError(
                f"the card of {address.server} sends calls to {place.hostname}, which is not given the token;"
                f" name that server with --server if it is the one"
            )
        if address.token and named.scheme == "https" and place.scheme != "https":
            raise RemoteError(
                f"the card of {address.server} sends calls to {interface.url}, which is not given the token"
                " without TLS; it is the server's to name its https:// URL (Hector: server.base_url)"
            )


def _place(url: str, scheme: str) -> SplitResult:
    """An address of gRPC's own has no scheme; it is reached as the card was."""
    return urlsplit(url if "//" in url else f"{scheme}://{url}")


def _channel(scheme: str, url: str) -> grpc.aio.Channel:
    parts = _place(url, scheme)
    if parts.scheme == "https":
        return grpc.aio.secure_channel(parts.netloc, grpc.ssl_channel_credentials())
    return grpc.aio.insecure_channel(parts.netloc)


def _refusal(response: httpx.Response, address: Address) -> str:
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return f"{address.server} wants a token: set HECTOR_TOKEN, or give --token"
    with suppress(ValueError, KeyError, TypeError, httpx.ResponseNotRead):
        told: Any = response.json()["error"]["message"]
        return f"{address.server}: {told}"
    return f"{address.server} answered {response.status_code} {response.reason_phrase}".rstrip()
