"""One or more replicas on one store, each with the scripted agent `a`."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TypeAlias

import pytest

from hector.domain.agents import Agent
from hector.domain.ids import SessionKey
from hector.domain.memory import Compaction
from hector.domain.messages import StoredMessage, Text, UserMessage
from hector.domain.push import PushConfig
from hector.domain.tools import Tool
from hector.domain.turns import Turn, TurnSettings
from hector.llm.scripted import Script, ScriptedModel, scripted_model
from hector.llm.scripted import notes as keep_notes
from hector.memory.summarizer import ModelSummarizer
from hector.memory.token_budget import TokenBudget
from hector.memory.tokens import counter_for
from hector.memory.window import BufferWindow
from hector.runtime.handle import TurnHandle
from hector.runtime.push.deliveries import Deliveries, PushSettings
from hector.runtime.replica import Replica
from hector.runtime.runtime import OpenStore, Runtime
from hector.runtime.turns import TurnRunner
from hector.server.a2a.push import write_notice
from hector.storage.store import SqlSessionStore
from tests.backends import Backend

KEY = SessionKey("a", "u", "s")
_SHORT_TTL = 0.6


@dataclass
class Node:
    """One replica, with what tests look at."""

    runtime: Runtime
    model: ScriptedModel
    store: SqlSessionStore
    opened: OpenStore
    notes: ScriptedModel
    """What writes its summaries."""
    crashed: bool = False

    async def send(
        self,
        text: str,
        *,
        message_id: str | None = None,
        task_id: str | None = None,
        push: PushConfig | None = None,
    ) -> TurnHandle:
        message = UserMessage((Text(text),))
        return await self.runtime.send(
            "a", "u", message, session_id="s", message_id=message_id, task_id=task_id, push=push
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

    async def summarized(self) -> None:
        """Return when no summary is being made."""
        while jobs := [*self.opened.runner._compactor._jobs.values()]:
            await asyncio.wait(jobs)
            await asyncio.sleep(0)

    async def outlives(self, other: "Node") -> None:
        """Return when what that node left, if it crashed, is cleared up."""
        dead = other.opened.runner.replica_id if other.crashed else None
        while True:
            known = [row.id for row in await self.store.replicas()]
            if dead not in known and not await self.store.orphans():
                return
            await asyncio.sleep(0.02)  # nobody tells

    async def buries(self, other: "Node") -> None:
        """Declare it dead, which lives."""
        while True:
            rows = await self.store.replicas()
            if await self.store.declare_dead(
                next(row for row in rows if row.id == other.opened.runner.replica_id)
            ):
                return  # otherwise it has just beaten

    async def beats(self) -> None:
        """Once, and looks at once at what it has and what others left."""
        await self.opened.replica._beat()
        await self.opened.replica._look()

    def stands_still(self) -> None:
        """It neither beats nor looks by itself from now on."""
        for task in self.opened.replica._tasks:
            task.cancel()

    async def ended(self, turn_id: str) -> Turn:
        """The turn when it has ended, whoever ran it."""
        while True:
            turn = await self.runtime.turn("a", "u", turn_id)
            if turn.state.terminal:
                return turn
            await asyncio.sleep(0.02)  # nobody tells who does not listen

    def crash(self) -> None:
        """As SIGKILL does: nothing is written any more, and the lock is freed."""
        self.crashed = True
        runner, replica = self.opened.runner, self.opened.replica
        for task in [*replica._tasks, *runner._tasks]:
            task.cancel()
        if deliveries := self.opened.deliveries:
            for telling in deliveries._telling.values():
                telling.cancel()
            if deliveries._looking:
                deliveries._looking.cancel()
        for local in runner._locals:
            if local.deadline:
                local.deadline.cancel()
        runner._locals._by_session.clear()
        if files := self.store._files:
            for descriptor in files._held.values():
                os.close(descriptor)
            files._held.clear()
        if presence := self.store._presence:
            presence.connection._over = True
            if presence.connection._connection is not None:
                presence.connection._connection.abort()


StartNode: TypeAlias = Callable[..., Awaitable[Node]]


@pytest.fixture
async def start(backend: Backend) -> AsyncIterator[StartNode]:
    """Starts a replica; in memory there can be one alone.

    On a server one that crashed is noticed after its ttl, which is short here, and waited for.
    """
    await backend.clear()
    started: list[Node] = []
    async with AsyncExitStack() as stack:

        async def start(
            *,
            settings: TurnSettings | None = None,
            tools: Mapping[str, Tool] | None = None,
            ttl: float = 15.0,
            opened: Sequence[str] = (),
            hands_over: bool = True,
            crashes: bool = True,
            push: PushSettings | None = None,
            budget: int | None = None,
            notes: Script = keep_notes,
            summarizes: bool = True,
        ) -> Node:
            """`opened` are gates of its model. `hands_over`: it is a server, and no `hector call`.

            `crashes`: it may, and is then to be missed soon. `push`: it tells webhooks, without pauses.
            With a `budget` it summarises what outgrows it, by `notes`; `summarizes`: behind replies too.
            """
            store = await backend.open()
            if backend.server and crashes:
                ttl = min(ttl, _SHORT_TTL)
            model = scripted_model("obey")
            for gate in opened:
                model.gate(gate).opened.set()
            writer, tokens = ScriptedModel(notes), counter_for("gpt-4o")
            agent = Agent(
                "a", "", model, BufferWindow(50), tokens, tools or {}, settings or TurnSettings(), "main"
            )
            if budget:
                compaction = Compaction(budget, 0.8, 0.6)
                memory = TokenBudget(budget, tokens, compaction)
                summarizer = ModelSummarizer(writer, tokens, compaction, memory.limit)
                agent = replace(agent, memory=memory, summarizer=summarizer)
            runner = TurnRunner(
                store, {"a": agent}.get, hands_over=hands_over and store.shared, summarizes=summarizes
            )
            replica = Replica(store, runner, store.locks, label="test", ttl=ttl)
            await replica.start()
            deliveries = None
            if push:
                deliveries = Deliveries(
                    store,
                    lambda: runner.replica_id,
                    push,
                    others=lambda: runner.wakes.others,
                    pause=lambda failures: 0.0,
                )
                runner.changed = deliveries.changed
            joined = OpenStore("main", store, runner, replica, deliveries)
            runtime = Runtime({"a": agent}, {"main": joined}, models=[model], message_limit=16_000_000)
            runtime.start_push(write_notice)
            stack.push_async_callback(runtime.close)
            node = Node(runtime, model, store, joined, writer)
            if backend.server:
                for other in started:
                    await node.outlives(other)
            started.append(node)
            return node

        yield start


@pytest.fixture
async def node(start: StartNode) -> Node:
    return await start()
