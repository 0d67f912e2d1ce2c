"""A2A's push notification configurations over plain HTTP."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hector.server.a2a.dialect import Dialect
from hector.server.a2a.fields import Fields
from hector.server.a2a.operations import Operations
from hector.server.a2a.push import is_around
from hector.server.http.body import check_media_type, parse_object, read_body
from hector.server.http.exchange import exchange_of
from hector.server.http.rest import agent_of


class PushRest:
    def __init__(self, operations: Operations, *, body_limit: int) -> None:
        self._operations = operations
        self._body_limit = body_limit

    def routes(self, agent: str) -> Sequence[Route]:
        """Below the path of an agent."""
        configs = agent + "/tasks/{task:segment}/pushNotificationConfigs"
        return [
            Route(configs, self.create, methods=["POST"]),
            Route(configs, self.list, methods=["GET"]),
            Route(configs + "/{config:segment}", self.get, methods=["GET"]),
            Route(configs + "/{config:segment}", self.delete, methods=["DELETE"]),
        ]

    async def create(self, request: Request) -> Response:
        """POST tasks/{task}/pushNotificationConfigs."""
        exchange = exchange_of(request)
        if "agent" in request.path_params:
            self._operations.push.check_served(request.path_params["agent"])  # before a body is read in vain
        check_media_type(exchange.headers.get(b"content-type"))
        fields = Fields(parse_object(await read_body(request, self._body_limit)), "")
        agent = agent_of(self._operations, request, exchange, tenant=fields.text("tenant"))
        # By the shape of the body, as for messages, where the caller names no version.
        dialect = exchange.version or (Dialect.V03_PROTO if is_around(fields) else Dialect.V1)
        return exchange.answer(
            await self._operations.push.create(
                agent, exchange.caller.user_id, request.path_params["task"], fields, dialect
            )
        )

    async def list(self, request: Request) -> Response:
        """GET tasks/{task}/pushNotificationConfigs."""
        exchange = exchange_of(request)
        return exchange.answer(
            await self._operations.push.list(
                agent_of(self._operations, request, exchange),
                exchange.caller.user_id,
                request.path_params["task"],
                exchange.version or Dialect.V03_PROTO,
            )
        )

    async def get(self, request: Request) -> Response:
        """GET tasks/{task}/pushNotificationConfigs/{config}."""
        exchange = exchange_of(request)
        return exchange.answer(
            await self._operations.push.get(
                agent_of(self._operations, request, exchange),
                exchange.caller.user_id,
                request.path_params["task"],
                request.path_params["config"],
                exchange.version or Dialect.V03_PROTO,
            )
        )

    async def delete(self, request: Request) -> Response:
        """DELETE tasks/{task}/pushNotificationConfigs/{config}."""
        exchange = exchange_of(request)
        return exchange.answer(
            await self._operations.push.delete(
                agent_of(self._operations, request, exchange),
                exchange.caller.user_id,
                request.path_params["task"],
                request.path_params["config"],
            )
        )
