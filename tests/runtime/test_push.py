"""Webhooks are told what becomes of their tasks, over HTTP, whatever happens to them and to us."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from hector.domain.push import PushConfig
from hector.domain.turns import TurnState
from hector.runtime.push.deliveries import PushSettings, pause_after
from hector.runtime.push.targets import Targets
from tests.backends import Backend
from tests.fakes.webhook import Got, Reaction, Receiver
from tests.runtime.conftest import KEY, Node, StartNode

WAIT = "wait g\nsay done"
LOCAL = PushSettings(Targets(["localhost"]), timeout=20)


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def node(start: StartNode) -> Node:
    return await start(push=LOCAL)


def to(hook: Receiver, dialect: str = "1.0", **more: object) -> PushConfig:
    return replace(PushConfig("c", f"{hook.url}/hook?x=1", dialect), **more)  # type: ignore[arg-type]


def shown(got: Sequence[Got]) -> list[str]:
    """The states that were told, and the reply."""
    found = []
    for each in got:
        said = each.json
        if "artifactUpdate" in said:
            found.append("reply " + said["artifactUpdate"]["artifact"]["parts"][0]["text"])
            continue
        status = (said.get("task") or said.get("statusUpdate") or said)["status"]
        found.append(status["state"].removeprefix("TASK_STATE_").lower().replace("-", "_"))
    return found


def ids(got: Sequence[Got]) -> list[str]:
    return [each.headers["webhook-id"] for each in got]


async def done(node: Node) -> None:
    """Until everything is told."""
    while (await node.store.due_pushes("", 1)).open:  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # nobody tells


async def test_a_webhook_of_1_0_is_told_the_task_and_its_updates(node: Node, hook: Receiver) -> None:
    config = to(hook, token="tok", schemes=("Bearer", "Basic"), credentials="s e")
    handle = await node.send("say hello", push=config)
    got = await hook.until(3)
    assert shown(got) == ["working", "reply hello", "completed"]
    assert [next(iter(each.json)) for each in got] == ["task", "artifactUpdate", "statusUpdate"]
    for each in got:
        assert (each.method, each.path) == ("POST", "/hook?x=1")
        assert each.headers["content-type"] == "application/a2a+json"
        assert each.headers["host"] == f"localhost:{hook.port}"
        assert each.headers["authorization"] == "Bearer s e"
        assert each.headers["x-a2a-notification-token"] == "tok"
        assert each.headers["user-agent"].startswith("hector/")
        assert handle.turn_id in each.body.decode()
    assert len(set(ids(got))) == 3
    await done(node)
    assert (len(hook.got), hook.connections) == (3, 1)


async def test_a_webhook_of_0_3_is_told_the_task_each_time(node: Node, hook: Receiver) -> None:
    for number, dialect in enumerate(("0.3 json", "0.3 proto"), 1):
        handle = await node.send("say hello", push=to(hook, dialect))
        working, completed = (await hook.until(2 * number))[-2:]
        assert (working.json["kind"], working.json["status"]["state"]) == ("task", "working")
        assert (completed.json["id"], completed.json["status"]["state"]) == (handle.turn_id, "completed")
        assert completed.json["artifacts"][0]["parts"] == [{"kind": "text", "text": "hello"}]
        assert completed.headers["content-type"] == "application/json"
        assert "authorization" not in completed.headers
        assert "x-a2a-notification-token" not in completed.headers


async def test_what_fails_is_sent_again_before_anything_else(start: StartNode, hook: Receiver) -> None:
    node = await start(push=replace(LOCAL, timeout=0.5))
    elsewhere = {"location": f"{hook.url}/elsewhere"}
    hook.react(
        Reaction(500),
        Reaction(drops=True),
        Reaction(302, elsewhere),
        Reaction(307, elsewhere),
        Reaction(404),
        Reaction(304),
        Reaction(holds=True),
        Reaction(204),
        Reaction(503),
        Reaction(200),
        Reaction(429),
        Reaction(202),
    )
    await node.send("say hello", push=to(hook))
    got = await hook.until(12)
    assert shown(got) == ["working"] * 8 + ["reply hello"] * 2 + ["completed"] * 2
    assert len(set(ids(got))) == 3
    assert {each.path for each in got} == {"/hook?x=1"}
    await done(node)
    assert len(hook.got) == 12


async def test_retry_after_is_heeded(start: StartNode, hook: Receiver) -> None:
    node = await start(push=LOCAL)
    hook.react(Reaction(503, {"retry-after": "1000"}))
    handle = await node.send("say hello", push=to(hook))
    await handle.result()
    await hook.until(1)
    other = await node.send("say again", push=to(hook, id="d"))
    got = await hook.until(4)
    assert shown(got) == ["working", "working", "reply again", "completed"]
    assert [other.turn_id in each.body.decode() for each in got] == [False, True, True, True]


async def test_each_change_of_state_is_told_once(node: Node, hook: Receiver) -> None:
    first = await node.send(WAIT)
    waiting = await node.send("say later", push=to(hook))
    await hook.until(1)
    await node.runtime.cancel("a", "u", first.turn_id)
    await waiting.result()
    assert shown(await hook.until(4)) == ["submitted", "working", "reply later", "completed"]
    await done(node)
    assert len(hook.got) == 4


async def test_a_cancellation_is_told(node: Node, hook: Receiver) -> None:
    handle = await node.send(WAIT, push=to(hook))
    await hook.until(1)
    await node.runtime.cancel("a", "u", handle.turn_id)
    got = await hook.until(2)
    assert shown(got) == ["working", "canceled"]
    assert got[1].json["statusUpdate"]["metadata"]["reason"] == "canceled"


async def test_one_that_is_made_later_is_told_how_the_task_stands(node: Node, hook: Receiver) -> None:
    turn = await node.ask("say hello")
    await node.runtime.set_push("a", "u", turn.id, to(hook))
    (got,) = await hook.until(1)
    assert got.json["task"]["artifacts"][0]["parts"] == [{"text": "hello"}]
    await done(node)
    assert len(hook.got) == 1


async def test_a_deleted_configuration_is_told_nothing_more(node: Node, hook: Receiver) -> None:
    handle = await node.send(WAIT, push=to(hook))
    await hook.until(1)
    await node.runtime.delete_push("a", "u", handle.turn_id, "c")
    await node.runtime.cancel("a", "u", handle.turn_id)
    await node.send("say hello", push=to(hook))
    got = await hook.until(4)
    assert shown(got) == ["working", "working", "reply hello", "completed"]


async def test_who_is_gone_is_told_nothing_more(node: Node, hook: Receiver) -> None:
    hook.react(Reaction(410))
    await node.send("say hello", push=to(hook))
    await hook.until(1)
    await done(node)
    assert len(hook.got) == 1


async def test_what_failed_for_too_long_is_left_out(start: StartNode, hook: Receiver) -> None:
    node = await start(push=replace(LOCAL, give_up_after=0.0))
    hook.react(Reaction(500))
    handle = await node.send(WAIT, push=to(hook))
    await hook.until(1)
    # Also not its own: what it holds counts for it as due.
    while (await node.store.due_pushes(node.opened.runner.replica_id, 1)).due:  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # nobody tells
    await node.runtime.cancel("a", "u", handle.turn_id)
    assert shown(await hook.until(2)) == ["working", "canceled"]


async def test_the_deletion_of_a_session_is_told_once(node: Node, hook: Receiver) -> None:
    handle = await node.send(WAIT, push=to(hook))
    waiting = await node.send("say hello", push=to(hook, id="d"))
    await hook.until(2)
    await node.runtime.delete_session(KEY)
    got = (await hook.until(4))[2:]
    assert shown(got) == ["canceled", "canceled"]
    assert {each.json["statusUpdate"]["taskId"] for each in got} == {handle.turn_id, waiting.turn_id}
    assert {each.json["statusUpdate"]["metadata"]["reason"] for each in got} == {"session deleted"}


async def test_a_slow_webhook_holds_up_no_other(node: Node, hook: Receiver) -> None:
    async with Receiver() as slow:
        slow.react(Reaction(holds=True))
        handle = await node.send("say hello", push=to(slow))
        await node.runtime.set_push("a", "u", handle.turn_id, to(hook, id="d"))
        await slow.until(1)
        await hook.until_true(lambda got: bool(got) and shown(got)[-1] == "completed")
        assert len(slow.got) == 1
        slow.release()
        assert shown(await slow.until(3)) == ["working", "reply hello", "completed"]


async def test_an_answer_without_an_end_is_not_waited_for(node: Node, hook: Receiver) -> None:
    hook.react(Reaction(200, endless=True), Reaction(200, body=b"x" * 60_000))
    await node.send("say hello", push=to(hook))
    assert shown(await hook.until(3)) == ["working", "reply hello", "completed"]
    assert hook.connections == 2


async def test_a_receiver_knows_by_the_signature_who_sends(start: StartNode, hook: Receiver) -> None:
    keys = [b"new" * 8, b"old" * 8]
    node = await start(push=replace(LOCAL, keys=keys))
    await node.send("say hello", push=to(hook))
    for got in await hook.until(3):
        name, timestamp = got.headers["webhook-id"], got.headers["webhook-timestamp"]
        assert abs(int(timestamp) - time.time()) < 60
        content = f"{name}.{timestamp}.".encode() + got.body
        expected = [
            "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode() for key in keys
        ]
        assert got.headers["webhook-signature"].split(" ") == expected


async def test_a_name_that_has_moved_inside_is_not_called(
    start: StartNode, hook: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """DNS rebinding: public when the configuration was made, this machine's own afterwards."""
    looks: list[str] = []
    looked_twice = asyncio.Event()

    async def moving(host: str, port: int) -> Sequence[str]:
        looks.append(host)
        if len(looks) > 3:  # the first call, and what came of it
            looked_twice.set()
        return ["1.1.1.1"] if len(looks) == 1 else ["127.0.0.1"]

    node = await start(push=PushSettings(Targets(resolve=moving)))
    url = f"https://hooks.example.com:{hook.port}/secret-path"
    await node.runtime.check_push("a", url)
    await node.send("say hello", push=PushConfig("c", url, "1.0", "tok", ("Bearer",), "secret"))
    await looked_twice.wait()
    assert hook.connections == 0
    assert "the webhook at hooks.example.com of task" in caplog.text
    assert "not public" in caplog.text
    for secret in ("secret", "tok", "hello"):
        assert secret not in caplog.text


async def test_it_is_connected_to_the_address_that_was_looked_at(start: StartNode, hook: Receiver) -> None:
    """Were the name resolved once more, there would be nobody."""

    async def only_here(host: str, port: int) -> Sequence[str]:
        assert host == "hooks.example.com"
        return ["127.0.0.1"]

    node = await start(push=PushSettings(Targets(["hooks.example.com"], only_here)))
    url = f"http://hooks.example.com:{hook.port}/"
    await node.send("say hello", push=PushConfig("c", url, "1.0"))
    got = await hook.until(3)
    assert {each.headers["host"] for each in got} == {f"hooks.example.com:{hook.port}"}


async def test_a_replica_goes_on_with_what_another_left(
    start: StartNode, backend: Backend, hook: Receiver
) -> None:
    if backend.name == "memory":
        pytest.skip("one process alone")
    one = await start(push=LOCAL)
    hook.react(Reaction(204), Reaction(holds=True))
    handle = await one.send("say hello", push=to(hook))
    await hook.until(2)
    await handle.result()
    two = await start(push=LOCAL)
    await two.beats()
    assert len(hook.got) == 2, "what the first does is not done twice"
    one.crash()
    await two.outlives(one)
    got = await hook.until(4)
    assert shown(got) == ["working", "reply hello", "reply hello", "completed"]
    assert ids(got)[1] == ids(got)[2]
    await done(two)
    assert len(hook.got) == 4


async def test_of_several_replicas_one_tells(start: StartNode, backend: Backend, hook: Receiver) -> None:
    if backend.name == "memory":
        pytest.skip("one process alone")
    one, two = await start(push=LOCAL), await start(push=LOCAL)
    handles = [await one.send(f"say {number}", push=to(hook, id=str(number))) for number in range(5)]
    for handle in handles:
        assert (await handle.result()).state is TurnState.COMPLETED
    await hook.until_true(lambda got: shown(got).count("completed") == 5)
    await done(two)
    assert sorted(set(ids(hook.got))) == sorted(ids(hook.got))


async def test_a_stop_waits_for_webhooks_that_were_called(start: StartNode, hook: Receiver) -> None:
    node = await start(push=LOCAL)
    hook.react(Reaction(holds=True))
    handle = await node.send("say hello", push=to(hook))
    await handle.result()
    await hook.until(1)
    closing = asyncio.create_task(node.runtime.close(5))
    hook.release()
    await closing
    assert len(hook.got) <= 3
    assert not [task for task in asyncio.all_tasks() if "_tell" in repr(task)]


def test_pauses_grow_at_random_to_a_bound() -> None:
    for failures in (0, 1, 5, 9, 100, 10**6):
        longest = min(600, 2 * 2 ** min(failures, 20))
        pauses = [pause_after(failures) for _ in range(200)]
        assert 0 <= min(pauses) < longest / 4
        assert longest * 3 / 4 < max(pauses) <= longest
