"""What clients of `hector serve` do, over HTTP."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.servers import Database

STORE = "production-db"


def configuration(
    db: Database, *agents: str, model: str = "recall", lease_ttl: float = 15, **sql: Any
) -> str:
    """As YAML, of which JSON is a part; what is given for the database replaces, and None removes."""
    return json.dumps(
        {
            "session_stores": {STORE: {"backend": "sql", "sql": db.section(**sql)}},
            "llms": {"scripted": {"type": "scripted", "model": model}},
            "turns": {"lease_ttl": lease_ttl},
            "agents": {
                name: {"llm": "scripted", "session_store": STORE} for name in agents or ("assistant",)
            },
        }
    )


class Client:
    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def post(
        self, text: str, *, session: str = "s", agent: str = "assistant", **more: Any
    ) -> httpx.Response:
        """`more` is of the message, or (`configuration`) stands beside it."""
        configuration = more.pop("configuration", {})
        message = {"context_id": session, "role": 1, "content": [{"text": text}], **more}
        body = {"message": message, "configuration": configuration}
        return await self.http.post(f"/v1/agents/{agent}/message:send", json=body)

    async def say(self, text: str, *, session: str = "s", agent: str = "assistant", **more: Any) -> str:
        """The agent's reply."""
        return reply(await self.post(text, session=session, agent=agent, **more))

    async def texts(self, session: str, agent: str = "assistant") -> list[str]:
        """What is stored, in its order."""
        found = await self.http.get(f"/v1/agents/{agent}/sessions/{session}", params={"limit": 1000})
        assert found.status_code == 200, found.text
        return [message["parts"][0]["text"] for message in found.json()["messages"]]


def reply(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    task = response.json()["task"]
    assert task["status"]["state"] == "TASK_STATE_COMPLETED", task
    text: str = task["artifacts"][0]["parts"][0]["text"]
    return text


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Client]:
    # No time-out of its own: that of the test is enough.
    async with httpx.AsyncClient(base_url=url, timeout=None, trust_env=False) as http:
        yield Client(http)
