"""Agent cards: what a client learns of an agent before it talks to it."""

from collections.abc import Mapping
from email.utils import formatdate
from importlib.metadata import version
from typing import Any

from starlette.responses import Response

from hector.domain.agents import Agent
from hector.server.http.responses import json_response


class Cards:
    def __init__(self, base_url: str | None, *, signs_in: bool, tls: bool = False) -> None:
        self._base_url = base_url
        self._scheme = "https" if tls else "http"
        self._signs_in = signs_in
        # An agent changes only with a restart.
        shared = "public" if base_url else "private"  # a URL by the caller's word is for that caller
        self._headers = {
            "cache-control": f"{shared}, max-age=60",
            "last-modified": formatdate(usegmt=True),
        }
        self._made: dict[str, Mapping[str, Any]] = {}

    def url(self, agent: str, headers: Mapping[bytes, bytes]) -> str:
        """By `server.base_url`, else by the name under which the caller reached this server."""
        base = self._base_url or f"{self._scheme}://{headers.get(b'host', b'localhost').decode('latin-1')}"
        return f"{base}/v1/agents/{agent}"

    def response(self, agent: Agent, headers: Mapping[bytes, bytes]) -> Response:
        url = self.url(agent.name, headers)
        if self._base_url is None:
            card = self._make(agent, url)
        else:
            card = self._made.get(agent.name) or self._made.setdefault(agent.name, self._make(agent, url))
        return json_response(card, headers=self._headers)

    def _make(self, agent: Agent, url: str) -> Mapping[str, Any]:
        # A tenth of a second to import, which a server that nobody asks for a card need not spend.
        from a2a.server.request_handlers.response_helpers import agent_card_to_dict  # noqa: PLC0415
        from a2a.types import (  # noqa: PLC0415
            AgentCapabilities,
            AgentCard,
            AgentInterface,
            AgentSkill,
        )

        description = agent.description or f"{agent.title or agent.name}, an agent served by Hector"
        card = AgentCard(
            name=agent.title or agent.name,
            description=description,
            version=version("hector"),
            supported_interfaces=[
                AgentInterface(url=url, protocol_binding=binding, protocol_version=spoken)
                for spoken in ("1.0", "0.3")
                for binding in ("HTTP+JSON", "JSONRPC")
            ],
            capabilities=AgentCapabilities(
                streaming=True, push_notifications=False, extended_agent_card=False
            ),
            default_input_modes=["text/plain", "application/json"],
            default_output_modes=["text/plain"],
            skills=[
                AgentSkill(id="chat", name=agent.title or agent.name, description=description, tags=["chat"])
            ],
        )
        if self._signs_in:
            card.security_schemes["bearer"].http_auth_security_scheme.scheme = "Bearer"
            card.security_requirements.add().schemes["bearer"].SetInParent()
        return agent_card_to_dict(card)
