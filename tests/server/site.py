"""The real application in process: an in-memory store, the scripted agents `a` and `b`, HTTP over ASGI."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx

from hector.config import AuthSection, TokenSection
from hector.domain.agents import Agent
from hector.domain.profiles import Profile
from hector.domain.tools import Tool
from hector.domain.turns import TurnSettings
from hector.llm.scripted import ScriptedModel, scripted_model
from hector.memory.tokens import counter_for
from hector.memory.window import BufferWindow
from hector.runtime.push.deliveries import Deliveries, PushSettings
from hector.runtime.replica import Replica
from hector.runtime.runtime import OpenStore, Runtime
from hector.runtime.turns import TurnRunner
from hector.server.http.app import HectorApp
from hector.storage.opening import open_memory

AGENTS = {"a": ("Agent A", "obeys"), "b": ("Agent B", "obeys")}
"""Title and description by name."""
ALICE, BOB, ADMIN = "token-of-alice", "token-of-bob", "token-of-admin"


@dataclass
class Site:
    """A running application, and what tests look at."""

    http: httpx.AsyncClient
    app: HectorApp
    runtime: Runtime
    model: ScriptedModel

    async def send(self, text: str, session: str | None = None, **more: Any) -> httpx.Response:
        return await self.http.post("/v1/agents/a/message:send", **said(text, session, **more))

    async def ask(self, text: str, session: str | None = None, **more: Any) -> Any:
        """The task."""
        answer = await self.send(text, session, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()["task"]

    async def until_waiting(self, session: str) -> None:
        """Until a message waits in a session."""
        waiting = 0
        while not waiting:
            await asyncio.sleep(0)  # in memory nothing else lets others run
            waiting = (await self.http.get(f"/v1/agents/a/sessions/{session}")).json()["waiting"]


def said(text: str, session: str | None = None, **more: Any) -> dict[str, Any]:
    """In the words of the Quick Start; `headers` apart, what else is given goes into the message."""
    message: dict[str, Any] = {"role": 1, "content": [{"text": text}]}
    if session is not None:
        message["context_id"] = session
    headers = more.pop("headers", None)
    configuration = more.pop("configuration", None)
    body: dict[str, Any] = {"message": message | more}
    if configuration is not None:
        body["configuration"] = configuration
    return {"json": body, "headers": headers}


def events(response: httpx.Response) -> list[Any]:
    """The data of a stream that has ended; an error event as it is."""
    found = []
    for block in response.text.split("\n\n"):
        found += [json.loads(line[6:]) for line in block.splitlines() if line.startswith("data: ")]
    return found


def reply(task: Any) -> str:
    assert len(task["artifacts"]) == 1
    assert task["artifacts"][0]["name"] == "reply"
    return "".join(part["text"] for part in task["artifacts"][0]["parts"])


def tokens() -> AuthSection:
    return AuthSection(
        tokens=(
            TokenSection.model_validate({"token": ALICE, "user": "alice"}),
            TokenSection.model_validate({"token": BOB, "user": "bob"}),
            TokenSection.model_validate({"token": ADMIN, "user": "root", "admin": True}),
        )
    )


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def open_scripted(
    *,
    settings: TurnSettings | None = None,
    tools: Mapping[str, Tool] | None = None,
    names: Mapping[str, tuple[str, str]] = AGENTS,
    profile: Profile = Profile(),
    push: PushSettings | None = None,
) -> tuple[Runtime, ScriptedModel]:
    store = open_memory()
    model = scripted_model("obey")
    agents = {
        name: Agent(
            name,
            "",
            model,
            BufferWindow(50),
            counter_for("gpt-4o"),
            tools or {},
            settings or TurnSettings(),
            "main",
            title,
            description,
            profile,
        )
        for name, (title, description) in names.items()
    }
    runner = TurnRunner(store, agents.get, hands_over=store.shared)
    replica = Replica(store, runner, store.locks, label="test", ttl=15.0)
    await replica.start()
    deliveries = Deliveries(store, lambda: runner.replica_id, push) if push else None
    if deliveries:
        runner.changed = deliveries.changed
    opened = OpenStore("main", store, runner, replica, deliveries)
    return Runtime(agents, {"main": opened}, models=[model], message_limit=16_000_000), model


StartSite: TypeAlias = Callable[..., Awaitable[Site]]
