"""The running agents of one process, and the one way in for everything that talks to them."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hector.domain.agents import Agent
from hector.domain.context import Context
from hector.domain.errors import (
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    StorageError,
    StoreOpenError,
    StoreUnavailableError,
    TooLargeError,
)
from hector.domain.ids import (
    SessionKey,
    check_message_id,
    check_session_id,
    check_storable,
    check_user_id,
    session_id_for,
)
from hector.domain.messages import StoredMessage, UserMessage, check_message, size_of
from hector.domain.models import Model
from hector.domain.push import PushConfig
from hector.domain.sessions import Session, SessionPage
from hector.domain.tokens import count_message
from hector.domain.turns import Turn, TurnFilter, TurnPage, TurnPlace, Wanted
from hector.runtime.context import context_of
from hector.runtime.following import ANSWER_WITHIN
from hector.runtime.handle import TurnHandle
from hector.runtime.push.deliveries import Deliveries, Write
from hector.runtime.push.targets import TargetError
from hector.runtime.replica import Replica
from hector.runtime.turns import Store, TurnRunner

T = TypeVar("T")

logger = logging.getLogger(__name__)

_LEAVES_WITHIN = 5.0
"""Seconds for the stores to be closed in; who stops a server gives it only so long."""
_KNOWN_WITHIN = 1.0
"""Seconds, for a look where a webhook is; it is looked again before it is called."""
_ANSWERS_WITHIN = 1.5
"""Seconds, for a look whether a store can be used."""


@dataclass(frozen=True, slots=True)
class OpenStore:
    """A session store, and this process's part in it."""

    name: str
    store: Store
    runner: TurnRunner
    replica: Replica
    deliveries: Deliveries | None = None
    """Of push notifications; None where there are none."""


async def _leave(opened: OpenStore) -> None:
    await opened.replica.stop()
    await opened.store.close()


async def _problem(opened: OpenStore) -> str | None:
    """Why the store cannot be used; one that does not answer is not to hide what the others say."""
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN):
            await opened.store.replicas()
        # Where reading works, writing may not.
        error = opened.replica.failure
    except TimeoutError:
        return f"session store {opened.name!r} has not answered within {_ANSWERS_WITHIN:g} s"
    except StorageError as found:
        error = found
    # Its cause says what an operator wants to know, and no secret.
    why = error.__cause__ if error and isinstance(error.__cause__, StoreOpenError) else error
    if why is None:
        return None
    return str(why) if repr(opened.name) in str(why) else f"session store {opened.name!r}: {why}"


async def _read(work: Awaitable[T]) -> T:
    """Within a bounded time, whatever state the store is in."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            return await work
    except TimeoutError:
        raise StoreUnavailableError("the session store does not answer; try again") from None


async def _done(work: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            return await work
    except TimeoutError:
        raise OutcomeUnknownError(
            "the session store does not answer, so nobody knows whether it was done; it is safe to repeat"
        ) from None


class Runtime:
    """Agents that can be talked to. Made by `open_runtime`."""

    def __init__(
        self,
        agents: Mapping[str, Agent],
        stores: Mapping[str, OpenStore],
        *,
        models: Sequence[Model],
        message_limit: int,
    ) -> None:
        """`models` are those of the agents and of their summarizers, to be closed with them."""
        self.agents = agents
        self._stores = stores
        self._models = models
        self._message_limit = message_limit
        self._closed = False

    async def send(
        self,
        agent_name: str,
        user_id: str,
        message: UserMessage,
        *,
        message_id: str | None = None,
        session_id: str | None = None,
        task_id: str | None = None,
        stream: bool = True,
        push: PushConfig | None = None,
    ) -> TurnHandle:
        """Take a message; when this returns it is stored, and its turn runs or waits.

        Without a session id, the message goes to the session of the task that it names, or to a new one.
        `stream` asks for text as the model writes it; without it the model may answer in one piece.
        `push` is made with the task, where the message is not a repeat.
        Raises `CallerError` or `StorageError`.
        """
        agent = self.agent(agent_name)
        check_user_id(user_id)
        message_id = check_message_id(message_id) if message_id is not None else str(uuid.uuid4())
        key = await self._key_of(agent, user_id, message_id, session_id, task_id)
        tokens = await self._check_and_count(agent, message)
        opened = self._of(agent)
        handle = await opened.runner.submit(
            agent,
            key,
            message,
            message_id=message_id,
            tokens=tokens,
            resumes=task_id,
            stream=stream,
            push=push,
        )
        if push and opened.deliveries:
            opened.deliveries.watch(handle.turn_id)
        return handle

    def agent(self, name: str) -> Agent:
        try:
            return self.agents[name]
        except KeyError:
            raise NotFoundError("agent", name, known=tuple(self.agents)) from None

    def default_agent(self, configured: str | None) -> str | None:
        """Whose it is what names no agent: the configured one, or the only one there is."""
        return configured or (next(iter(self.agents)) if len(self.agents) == 1 else None)

    async def turn(self, agent_name: str, user_id: str, turn_id: str) -> Turn:
        """A turn with its messages. Raises `NotFoundError`."""
        check_storable(turn_id, "task_id")
        turn = await _read(self._of(self.agent(agent_name)).store.turn(agent_name, user_id, turn_id))
        if turn is None:
            raise NotFoundError("task", turn_id)
        return turn

    async def turns(
        self,
        agent_name: str,
        user_id: str,
        which: TurnFilter,
        *,
        limit: int,
        after: TurnPlace | None = None,
        wanted: Wanted = "questions",
    ) -> TurnPage:
        """A user's turns, the last changed first."""
        store = self._of(self.agent(agent_name)).store
        found = store.turns(agent_name, user_id, which, limit=limit, after=after, wanted=wanted)
        return await _read(found)

    async def listen(self, agent_name: str, user_id: str, turn_id: str) -> TurnHandle:
        """What a turn tells, whoever runs it, also after its end. Raises `NotFoundError`."""
        turn = await self.turn(agent_name, user_id, turn_id)
        feed = self._of(self.agent(agent_name)).runner.listen(turn)
        return TurnHandle(turn.key, turn.id, "", feed, repeated=True)

    async def until_gone_on(self, paused: Turn) -> None:
        """Return when a paused turn goes on, has ended or is gone. Raises `StorageError`."""
        await self._of(self.agent(paused.key.agent_id)).runner.until_gone_on(paused)

    async def cancel(self, agent_name: str, user_id: str, turn_id: str) -> Turn:
        """End a turn as its user wishes; one that has ended stays as it is."""
        turn = await self.turn(agent_name, user_id, turn_id)
        canceled = await _done(self._of(self.agent(agent_name)).runner.cancel(turn.key, turn_id))
        return canceled or await self.turn(agent_name, user_id, turn_id)

    def pushes(self, agent_name: str) -> bool:
        """Webhooks are told of this agent's tasks."""
        return self._of(self.agent(agent_name)).deliveries is not None

    async def check_push(self, agent_name: str, url: str) -> None:
        """Raises `TargetError` where it is known already that the webhook will not be called."""
        deliveries = self._of(self.agent(agent_name)).deliveries
        assert deliveries, "asked of agents with webhooks"
        targets = deliveries.settings.targets
        target = targets.parse(url)
        try:
            async with asyncio.timeout(_KNOWN_WITHIN):
                await targets.addresses(target.host, target.port)
        except TargetError:
            raise
        except (TimeoutError, OSError):
            pass  # its name may be known by the time it is called

    async def set_push(self, agent_name: str, user_id: str, turn_id: str, config: PushConfig) -> PushConfig:
        """Raises `NotFoundError`, `InvalidError`."""
        opened = self._of(self.agent(agent_name))
        made = await _done(
            opened.store.set_push(agent_name, user_id, check_storable(turn_id, "task_id"), config)
        )
        if made is None:
            raise NotFoundError("task", turn_id)
        if opened.deliveries:
            opened.deliveries.watch(turn_id)
        return made

    async def push_configs(self, agent_name: str, user_id: str, turn_id: str) -> Sequence[PushConfig]:
        """Raises `NotFoundError`."""
        store = self._of(self.agent(agent_name)).store
        found = await _read(store.pushes(agent_name, user_id, check_storable(turn_id, "task_id")))
        if found is None:
            raise NotFoundError("task", turn_id)
        return found

    async def delete_push(self, agent_name: str, user_id: str, turn_id: str, config_id: str) -> None:
        """Raises `NotFoundError` for a task that is not there; a configuration may be gone already."""
        store = self._of(self.agent(agent_name)).store
        check_storable(turn_id, "task_id"), check_storable(config_id, "id")
        if not await _done(store.delete_push(agent_name, user_id, turn_id, config_id)):
            raise NotFoundError("task", turn_id)

    def start_push(self, write: Write) -> None:
        """Tell webhooks from now on, in the words of `write`."""
        for opened in self._stores.values():
            if opened.deliveries:
                opened.deliveries.start(write)

    async def session(self, key: SessionKey) -> Session:
        """Raises `NotFoundError`."""
        session = await self.find_session(key)
        if session is None:
            raise NotFoundError("session", key.session_id)
        return session

    async def find_session(self, key: SessionKey) -> Session | None:
        return await _read(self._of(self.agent(key.agent_id)).store.session(key))

    async def messages(
        self, key: SessionKey, *, before: int | None = None, limit: int = 100
    ) -> Sequence[StoredMessage]:
        """The newest messages with a seq below `before`, oldest first."""
        store = self._of(self.agent(key.agent_id)).store
        return await _read(store.messages(key, before=before, limit=limit))

    async def context(self, key: SessionKey) -> Context:
        """What the agent's model would be sent next; of no session no messages."""
        agent = self.agent(key.agent_id)
        return await _read(context_of(agent, self._of(agent).store, key))

    async def sessions(
        self, agent_name: str, *, user_id: str | None, limit: int = 50, cursor: str | None = None
    ) -> SessionPage:
        """An agent's sessions by last change, newest first; None for those of all users."""
        store = self._of(self.agent(agent_name)).store
        page = store.sessions(agent_id=agent_name, user_id=user_id, limit=limit, cursor=cursor)
        return await _read(page)

    async def create_session(self, key: SessionKey) -> bool:
        """Make an empty session; False if it exists."""
        check_session_id(key.session_id)
        return await _done(self._of(self.agent(key.agent_id)).store.create(key))

    async def delete_session(self, key: SessionKey) -> bool:
        """Delete a session and all that belongs to it; its turns end as canceled. False if there was none."""
        opened = self._of(self.agent(key.agent_id))
        going = await _read(opened.deliveries.going(key)) if opened.deliveries else ()
        was_there = await _done(opened.runner.delete(key))
        if was_there and opened.deliveries:
            opened.deliveries.bid_farewell(key, going)
        return was_there

    async def not_ready(self) -> list[str]:
        """Why requests would fail now; empty if they would not."""
        problems = await asyncio.gather(*map(_problem, self._stores.values()))
        return [problem for problem in problems if problem]

    async def warm_up(self) -> None:
        """Do in the background what would make the first answers slow."""
        await asyncio.gather(*(agent.model.warm_up() for agent in self.agents.values()))

    async def close(self, drain_timeout: float = 0.0) -> None:
        """Let running turns end for so many seconds, end what still runs, and leave the stores."""
        if self._closed:
            return
        self._closed = True
        await asyncio.gather(*(opened.runner.close(drain_timeout) for opened in self._stores.values()))
        posting = [opened.deliveries for opened in self._stores.values() if opened.deliveries]
        await asyncio.gather(*(each.stop(drain_timeout) for each in posting))
        try:
            async with asyncio.timeout(_LEAVES_WITHIN):
                await asyncio.gather(*map(_leave, self._stores.values()))
        except TimeoutError:
            logger.warning("session stores do not answer; they are left without a word")
        for model in self._models:
            await model.close()

    def _of(self, agent: Agent) -> OpenStore:
        return self._stores[agent.session_store]

    async def _key_of(
        self, agent: Agent, user_id: str, message_id: str, session_id: str | None, task_id: str | None
    ) -> SessionKey:
        if task_id is not None:
            turn = await self.turn(agent.name, user_id, task_id)
            if session_id is not None and session_id != turn.key.session_id:
                raise InvalidError(
                    "context_id", f"task {task_id!r} belongs to another session; leave context_id out"
                )
            return turn.key
        if session_id is None:
            session_id = session_id_for(agent.name, user_id, message_id)
        return SessionKey(agent.name, user_id, check_session_id(session_id))

    async def _check_and_count(self, agent: Agent, message: UserMessage) -> int:
        check_message(message)
        size = size_of(message)
        if size > self._message_limit:
            raise TooLargeError(
                "message",
                f"has {size} bytes; at most {self._message_limit} are allowed (server.limits.message)",
            )
        return await count_message(agent.tokens, message)
