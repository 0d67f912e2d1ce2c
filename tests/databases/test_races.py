"""Replicas that meet in the same sessions while connections break and callers leave."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import TypeVar

import pytest

from hector.domain.errors import LeaseLostError, OutcomeUnknownError, StoreUnavailableError
from hector.domain.ids import SessionKey
from hector.domain.messages import File, ModelMessage, Text, UserMessage
from hector.domain.turns import Begun, Joined, Queued, Reason, Repeated, Turn, TurnState
from hector.storage.opening import open_server
from hector.storage.settings import Tls
from tests.contract.actor import COMPLETED, FAILED, KEY, WINDOW, Actor, call, dump, said, text_of
from tests.databases.proxy import Proxy, proxy_to
from tests.servers import Database

pytestmark = [pytest.mark.timeout(120)]

T = TypeVar("T")

KEYS = [replace(KEY, session_id=f"s{number}") for number in range(3)]
MESSAGES = 4
"""In each session; every client sends each of them."""
CLIENTS = 4
"""Of each replica."""


@dataclass
class Scene:
    proxies: list[Proxy]
    replicas: list[Actor]
    dice: random.Random
    begun: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How many were given this very run of a turn, other than for the same arrival."""


@pytest.fixture
async def scene(server_db: Database) -> AsyncIterator[Scene]:
    async with (
        proxy_to(server_db.host, server_db.port) as one,
        proxy_to(server_db.host, server_db.port) as two,
    ):
        stores = [
            await open_server(
                server_db.driver, server_db.settings(port=port, max_conns=4, max_idle=4, tls=Tls("disable"))
            )
            for port in (one.port, two.port, server_db.port)
        ]
        yield Scene([one, two], [await Actor(store).join() for store in stores], random.Random(7))
        for store in stores:
            await store.close()


async def test_each_message_is_answered_once_and_turns_do_not_mix(scene: Scene) -> None:
    breaking = asyncio.ensure_future(_break_connections(scene))
    cancelling = asyncio.ensure_future(_cancel_turns(scene))
    async with asyncio.TaskGroup() as clients:
        for replica in scene.replicas:
            for number in range(CLIENTS):
                clients.create_task(_client(scene, replica, number))
    for task in (breaking, cancelling):
        task.cancel()
    await asyncio.gather(breaking, cancelling, return_exceptions=True)
    assert all(times == 1 for times in scene.begun.values())
    for key in KEYS:
        await _check(scene, key)


async def test_first_messages_that_come_at_once_make_one_session(scene: Scene) -> None:
    """With files, which no single statement stores."""
    for number in range(10):
        key = replace(KEY, session_id=f"new{number}")
        parts = (Text("hi"), File(data=b"x" * 70_000))
        accepted = await asyncio.gather(
            *(
                replica.send(message_id=f"m{each}", key=key, parts=parts)
                for replica in scene.replicas
                for each in range(CLIENTS)
            )
        )
        assert Counter(type(each) for each in accepted) == {
            Begun: 1,
            Queued: CLIENTS - 1,
            Joined: 2 * CLIENTS,
        }
        assert sorted(each.ticket for each in accepted if isinstance(each, Queued)) == [1, 2, 3]


async def test_a_session_deleted_under_its_turns_leaves_nothing_of_them(scene: Scene) -> None:
    async def work(replica: Actor, number: int) -> None:
        for each in range(15):
            try:
                accepted = await replica.send(f"m{number}-{each}")
                while not isinstance(accepted, Begun):
                    if not isinstance(accepted, Queued):
                        return
                    turn = await replica.store.turn(KEY.agent_id, KEY.user_id, accepted.turn_id)
                    if turn is None or turn.state.terminal:
                        break
                    accepted = await replica.take() or accepted
                else:
                    lease = await replica.store.append(accepted.lease, [call("look")])
                    await replica.store.end(lease, [said("ok")], COMPLETED)
            except LeaseLostError:
                continue

    async def delete() -> None:
        while True:
            await asyncio.sleep(scene.dice.uniform(0, 0.03))
            await scene.replicas[-1].store.delete(KEY)

    deleting = asyncio.ensure_future(delete())
    async with asyncio.TaskGroup() as clients:
        for replica in scene.replicas:
            for number in range(CLIENTS):
                clients.create_task(work(replica, number))
    deleting.cancel()
    await asyncio.gather(deleting, return_exceptions=True)
    store = scene.replicas[-1].store
    session = await store.session(KEY)
    stored = [each for each in await store.messages(KEY, limit=10_000) if each.seq is not None]
    assert [each.seq for each in stored] == list(range(1, (session.messages if session else 0) + 1))
    await store.delete(KEY)
    rows = await dump(store)
    assert {name for name, found in rows.items() if found} == {"replicas", "tombstones"}


async def _client(scene: Scene, replica: Actor, number: int) -> None:
    sent = [(key, f"m{number}") for key in KEYS for number in range(MESSAGES)]
    random.Random(number).shuffle(sent)
    for key, message_id in sent:
        # A repeat of a message that failed begins a new turn.
        while (await _answer_to(scene, replica, key, message_id)).state is TurnState.FAILED:
            pass


async def _answer_to(scene: Scene, replica: Actor, key: SessionKey, message_id: str) -> Turn:
    arrival = replica.arrival(f"say {message_id}", message_id, key=key)
    accepted = await _insist(scene, lambda: replica.store.accept(arrival, WINDOW))
    match accepted:
        case Begun():
            await _run(scene, replica, accepted)
            turn_id = accepted.lease.turn_id
        case Queued(turn_id=turn_id):
            pass
        case Joined(turn) | Repeated(turn):
            turn_id = turn.id
    while True:
        found = await _insist(scene, lambda: replica.store.turn(key.agent_id, key.user_id, turn_id))
        assert found
        if found.state.terminal:
            return found
        # A take whose caller left would be run by nobody.
        if taken := await _insist(scene, lambda: replica.take(key), leaves=False):
            await _run(scene, replica, taken)
        else:
            await asyncio.sleep(0.005)


async def _run(scene: Scene, replica: Actor, begun: Begun) -> None:
    lease = begun.lease
    scene.begun[lease.turn_id, lease.epoch] += 1
    seqs = [stored.seq for stored in begun.tail.messages]
    first = max(1, lease.run_seq - WINDOW.messages)
    assert seqs == list(range(first, lease.run_seq)), "the tail is all that came before"
    text = f"re: {text_of(begun.own[-1].message)}"
    try:
        for _ in range(scene.dice.randrange(3)):
            step = call("look", idempotent=True)
            lease = await _insist(scene, partial(replica.store.append, lease, [step]))
        if scene.dice.random() < 0.2:
            await _insist(scene, partial(replica.store.end, lease, [], FAILED))
        else:
            turn = await _insist(scene, partial(replica.store.end, lease, [said(text)], COMPLETED))
            assert turn.reply == text
    except LeaseLostError:
        turn_now = await _insist(
            scene, lambda: replica.store.turn(lease.key.agent_id, lease.key.user_id, lease.turn_id)
        )
        assert turn_now
        assert turn_now.reason == Reason.CANCELED


async def _insist(scene: Scene, act: Callable[[], Awaitable[T]], *, leaves: bool = True) -> T:
    """Until it is done; sometimes the caller leaves in the middle, and comes back."""
    while True:
        acting = asyncio.ensure_future(act())
        patience = scene.dice.uniform(0, 0.02) if leaves and scene.dice.random() < 0.1 else None
        await asyncio.wait((acting,), timeout=patience)
        acting.cancel()
        try:
            return await acting
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current and current.cancelling():
                raise
        except (StoreUnavailableError, OutcomeUnknownError):
            await asyncio.sleep(0.01)


async def _break_connections(scene: Scene) -> None:
    while True:
        await asyncio.sleep(scene.dice.uniform(0.02, 0.1))
        scene.dice.choice(scene.proxies).cut()


async def _cancel_turns(scene: Scene) -> None:
    replica = scene.replicas[-1]
    while True:
        await asyncio.sleep(scene.dice.uniform(0.05, 0.2))
        session = await replica.store.session(scene.dice.choice(KEYS))
        if session and session.running_turn_id:
            await replica.store.cancel(session.key, session.running_turn_id)


async def _check(scene: Scene, key: SessionKey) -> None:
    store = scene.replicas[-1].store
    session = await store.session(key)
    assert session
    assert (session.running_turn_id, session.waiting) == (None, 0)
    stored = [each for each in await store.messages(key, limit=10_000) if each.seq is not None]
    assert [each.seq for each in stored] == list(range(1, session.messages + 1))
    runs = [(turn_id, list(run)) for turn_id, run in groupby(stored, lambda each: each.turn_id)]
    assert len({turn_id for turn_id, _ in runs}) == len(runs), "no turn lies within another"
    answers: Counter[str] = Counter()
    for turn_id, run in runs:
        assert isinstance(run[0].message, UserMessage)
        assert not any(isinstance(each.message, UserMessage) for each in run[1:])
        turn = await store.turn(key.agent_id, key.user_id, turn_id)
        assert turn
        assert turn.state.terminal
        if isinstance(run[-1].message, ModelMessage) and turn.state == COMPLETED.state:
            assert text_of(run[-1].message) == f"re: {text_of(run[0].message)}"
            answers[run[0].message_id or ""] += 1
    assert set(answers.values()) <= {1}
    assert {run[0].message_id for _, run in runs} == {f"m{number}" for number in range(MESSAGES)}
