"""Agent cards over HTTP, which clients keep and ask for again only if they changed."""

from starlette.requests import Request
from starlette.responses import Response

from hector.server.a2a.card import Cards
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.operations import Operations
from hector.server.a2a.wire import Json
from hector.server.http.exchange import Exchange, exchange_of
from hector.server.http.keeping import kept, now
from hector.server.http.responses import to_json


class CardPages:
    def __init__(self, operations: Operations, cards: Cards) -> None:
        self._operations = operations
        self._cards = cards
        # An agent changes only with a restart.
        self._since = now()

    async def public(self, request: Request) -> Response:
        """GET .well-known/agent-card.json; at the server's root `?name=` chooses the agent."""
        exchange = exchange_of(request)
        named = request.path_params.get("agent") or exchange.query.get("name")
        card = self._cards.public(self._operations.agent_for(named), exchange.reached)
        keepers = "public" if self._cards.shared else "private"
        return self._kept(card, exchange, f"{keepers}, max-age=60", "application/json")

    async def extended(self, request: Request) -> Response:
        """GET extendedAgentCard, of A2A 1.0."""
        return self._extended(request, Dialect.V1)

    async def extended_of_0_3(self, request: Request) -> Response:
        """GET card."""
        return self._extended(request, Dialect.V03_JSON)

    def _extended(self, request: Request, dialect: Dialect) -> Response:
        exchange = exchange_of(request)
        agent = self._operations.agent_for(request.path_params.get("agent") or exchange.query.get("tenant"))
        card = self._operations.extended_card(agent, exchange.reached, dialect)
        answer = self._kept(card, exchange, "private, max-age=60", exchange.media_type)
        answer.headers["vary"] = "authorization"
        return answer

    def _kept(self, card: Json, exchange: Exchange, keeping: str, media_type: str) -> Response:
        return kept(
            to_json(card), exchange.headers, since=self._since, keeping=keeping, media_type=media_type
        )
