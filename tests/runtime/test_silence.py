"""A store that takes a request and does not answer: nobody waits for ever, and nothing is lost."""

import asyncio
from typing import Any

import pytest

from hector.domain.errors import OutcomeUnknownError, StoreUnavailableError
from hector.domain.turns import TurnState
from tests.runtime.conftest import KEY, Node


class Silence:
    """Holds back every call of one method of the store until it is broken."""

    def __init__(self, node: Node, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.broken = asyncio.Event(), asyncio.Event()
        call = getattr(node.store, method)

        async def silent(*args: Any, **more: Any) -> Any:
            self.begun.set()
            await self.broken.wait()
            return await call(*args, **more)

        monkeypatch.setattr(node.store, method, silent)


def impatient(patch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        patch.setattr(f"hector.{name}", 0.01)


async def test_who_sends_a_message_is_told_of_the_silence_and_repeats(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        impatient(patch, "runtime.arrivals.ANSWER_WITHIN")
        silence = Silence(node, "accept", patch)
        with pytest.raises(OutcomeUnknownError, match="safe to repeat"):
            await node.send("say 0", message_id="m1")
        silence.broken.set()
    assert (await node.ask("say 0", message_id="m1")).reply == "0"
    assert len(node.model.requests) == 1


async def test_who_waits_for_an_answer_is_told_of_the_silence_and_the_answer_is_kept(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        impatient(patch, "engine.turn.SILENCE")
        silence = Silence(node, "end", patch)
        handle = await node.send("say 0", message_id="m1")
        with pytest.raises(OutcomeUnknownError, match="safe to repeat"):
            await handle.result()
    repeating = asyncio.create_task(node.ask("say 0", message_id="m1"))
    silence.broken.set()
    turn = await repeating
    assert (turn.id, turn.state, turn.reply) == (handle.turn_id, TurnState.COMPLETED, "0")
    assert len(node.model.requests) == 1


async def test_who_only_looks_is_told_of_the_silence(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = await node.ask("say 0")
    with monkeypatch.context() as patch:
        impatient(patch, "runtime.runtime.ANSWER_WITHIN")
        for method in ("turn", "session", "sessions", "messages"):
            Silence(node, method, patch)
        for look in (
            node.runtime.turn("a", "u", turn.id),
            node.runtime.session(KEY),
            node.runtime.sessions("a", user_id="u"),
            node.runtime.messages(KEY),
        ):
            with pytest.raises(StoreUnavailableError, match="does not answer"):
                await look


async def test_who_deletes_is_told_that_nobody_knows(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    await node.ask("say 0")
    with monkeypatch.context() as patch:
        impatient(patch, "runtime.runtime.ANSWER_WITHIN")
        silence = Silence(node, "delete", patch)
        with pytest.raises(OutcomeUnknownError, match="safe to repeat"):
            await node.runtime.delete_session(KEY)
        silence.broken.set()
    assert await node.runtime.delete_session(KEY)


async def test_a_stop_tells_those_whose_message_is_not_answered_for(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        impatient(patch, "runtime.turns._LAST_WRITES")
        silence = Silence(node, "accept", patch)
        sending = asyncio.create_task(node.send("say 0"))
        await silence.begun.wait()
        await node.opened.runner.close(0.0)
        with pytest.raises(OutcomeUnknownError, match="safe to repeat"):
            await sending
