"""One or more replicas on one store, each with the scripted agent `a`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from hector.domain.agents import Agent
from hector.domain.ids import SessionKey
from hector.domain.messages import StoredMessage, Text, UserMessage
from hector.domain.tools import Tool
from hector.domain.turns import Turn, TurnSettings
from hector.llm.scripted import ScriptedModel, scripted_model
from hector.memory.tokens import counter_for
from hector.memory.window import BufferWindow
from hector.runtime.handle import TurnHandle
from hector.runtime.replica import Replica
from hector.runtime.runtime import OpenStore, Runtime
from hector.runtime.turns import TurnRunner
from hector.storage.sqlite import SqliteSettings
from hector.storage.store import SqlSessionStore, open_memory, open_sqlite

KEY = SessionKey("a", "u", "s")


@dataclass
class Node:
    """One replica, with what tests look at."""

    runtime: Runtime
    model: ScriptedModel
    store: SqlSessionStore
    opened: OpenStore

    async def send(
        self, text: str, *, message_id: str | None = None, task_id: str | None = None
    ) -> TurnHandle:
        message = UserMessage((Text(text),))
        return await self.runtime.send(
            "a", "u", message, session_id="s", message_id=message_id, task_id=task_id
        )

    async def ask(self, text: str, *, message_id: str | None = None, task_id: str | None = None) -> Turn:
        return await (await self.send(text, message_id=message_id, task_id=task_id)).result()

    async def messages(self) -> Sequence[StoredMessage]:
        return await self.runtime.messages(KEY)

    def sent(self) -> list[str]:
        """The texts that the model was sent last."""
        return [
            getattr(message, "text", "") or message.parts[0].text  # type: ignore[union-attr]
            for message in self.model.requests[-1].messages
        ]

    def crash(self) -> None:
        """As SIGKILL does: nothing is written any more, and the OS frees the lock."""
        runner, replica = self.opened.runner, self.opened.replica
        assert replica._task
        replica._task.cancel()
        for task in list(runner._tasks):
            task.cancel()
        runner._locals._by_session.clear()
        if self.store.locks:
            for descriptor in self.store.locks._held.values():
                import os

                os.close(descriptor)
            self.store.locks._held.clear()


StartNode: TypeAlias = Callable[..., Awaitable[Node]]


@pytest.fixture(params=["memory", "sqlite"])
async def start(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StartNode]:
    """Starts a replica; in memory there can be one alone."""
    async with AsyncExitStack() as stack:

        async def start(
            *,
            settings: TurnSettings | None = None,
            tools: Mapping[str, Tool] | None = None,
            ttl: float = 15.0,
        ) -> Node:
            if request.param == "memory":
                store = open_memory()
            else:
                store = await open_sqlite("main", SqliteSettings(tmp_path / "sessions.db"))
            model = scripted_model("obey")
            agent = Agent(
                "a",
                "",
                model,
                BufferWindow(50),
                counter_for("gpt-4o"),
                tools or {},
                settings or TurnSettings(),
                "main",
            )
            runner = TurnRunner(store, {"a": agent}.get)
            replica = Replica(store, runner, store.locks, label="test", ttl=ttl)
            await replica.start()
            opened = OpenStore("main", store, runner, replica)
            runtime = Runtime({"a": agent}, {"main": opened}, message_limit=16_000_000)
            stack.push_async_callback(runtime.close)
            return Node(runtime, model, store, opened)

        yield start


@pytest.fixture
async def node(start: StartNode) -> Node:
    return await start()
