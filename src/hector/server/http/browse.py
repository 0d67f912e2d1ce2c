"""Agents and sessions to look at, and sessions to delete: Hector's own part of the HTTP surface."""

from starlette.requests import Request
from starlette.responses import Response

from hector.domain.errors import NotFoundError
from hector.domain.ids import SessionKey, check_session_id
from hector.domain.messages import (
    Data,
    File,
    JsonValue,
    ModelMessage,
    Part,
    StoredMessage,
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from hector.domain.sessions import Session
from hector.runtime.runtime import Runtime
from hector.server.a2a.card import Cards
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.wire import Json, filled, part_json, timestamp
from hector.server.http.exchange import exchange_of

_MOST_SESSIONS, _MOST_MESSAGES = 200, 1000
_LARGEST = 2**53


class Browse:
    def __init__(self, runtime: Runtime, cards: Cards) -> None:
        self._runtime = runtime
        self._cards = cards

    async def agents(self, request: Request) -> Response:
        exchange = exchange_of(request)
        agents: list[JsonValue] = [
            {
                "name": agent.name,
                "title": agent.title,
                "description": agent.description,
                "url": self._cards.url(agent.name, exchange.reached),
            }
            for agent in self._runtime.agents.values()
        ]
        return exchange.answer({"agents": agents})

    async def sessions(self, request: Request) -> Response:
        exchange = exchange_of(request)
        page = await self._runtime.sessions(
            request.path_params["agent"],
            user_id=exchange.caller.subjects(exchange.query.get("user")),
            limit=exchange.count("limit", 50, most=_MOST_SESSIONS) or 50,
            cursor=exchange.query.get("cursor") or None,
        )
        return exchange.answer(
            {"sessions": [_session(session) for session in page.sessions], "nextCursor": page.next_cursor}
        )

    async def session(self, request: Request) -> Response:
        """With its newest messages below `before`, oldest first; the answer's `before` asks for more."""
        exchange = exchange_of(request)
        key = self._key(request)
        limit = exchange.count("limit", 100, most=_MOST_MESSAGES) or 100
        before = exchange.count("before", None, most=_LARGEST)
        session = await self._runtime.session(key)
        messages = await self._runtime.messages(key, before=before, limit=limit)
        first = messages[0].seq if messages else None
        return exchange.answer(
            _session(session)
            | {
                "messages": [_message(stored) for stored in messages],
                "before": first if first is not None and first > 1 else None,
            }
        )

    async def delete(self, request: Request) -> Response:
        key = self._key(request)
        if not await self._runtime.delete_session(key):
            raise NotFoundError("session", key.session_id)
        return Response(status_code=204)

    def _key(self, request: Request) -> SessionKey:
        exchange = exchange_of(request)
        user = exchange.caller.subject(exchange.query.get("user"))
        agent = self._runtime.agent(request.path_params["agent"])
        return SessionKey(agent.name, user, check_session_id(request.path_params["session"], "session"))


def _session(session: Session) -> Json:
    return {
        "agent": session.key.agent_id,
        "user": session.key.user_id,
        "id": session.key.session_id,
        "messageCount": session.messages,
        "waiting": session.waiting,
        "runningTaskId": session.running_turn_id,
        "createdAt": timestamp(session.created_at),
        "updatedAt": timestamp(session.updated_at),
    }


def _message(stored: StoredMessage) -> Json:
    made: Json = {
        "seq": stored.seq,
        "role": _role(stored),
        "taskId": stored.turn_id,
        "parts": [shown for part in stored.message.parts if (shown := _part(part)) is not None],
        "createdAt": timestamp(stored.created_at) if stored.created_at else None,
    }
    if stored.message_id is not None:
        made["messageId"] = stored.message_id
    if stored.unanswered is not None:
        made["notAnswered"] = stored.unanswered
    return made


def _role(stored: StoredMessage) -> str:
    match stored.message:
        case UserMessage():
            return "user"
        case ModelMessage():
            return "agent"
        case ToolMessage():
            return "tool"


def _part(part: Part) -> Json | None:
    """As A2A 1.0 writes it, and beyond that tool calls and results; None for what nobody is shown."""
    match part:
        case Thinking():
            return None
        case ToolCall():
            return {"toolCall": {"id": part.id, "name": part.name, "arguments": part.arguments}}
        case ToolResult():
            return {
                "toolResult": {
                    "id": part.call_id,
                    "name": part.name,
                    "text": part.text,
                    "isError": part.is_error,
                }
            }
        case File(data=None, url=None):
            # Listings name the bytes instead of reading them.
            listed: Json = {"sha256": part.sha256, "size": part.size}
            return filled(listed, filename=part.name, mediaType=part.media_type)
        case Text() | Data() | File():
            return part_json(Dialect.V1, part)
