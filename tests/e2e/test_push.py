"""Webhooks of real servers that are killed while they call them."""

import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import CONFIG, Server
from tests.fakes.webhook import Got, Reaction, Receiver

MORE = """\
server: {drain_timeout: 0, push: {allow: [localhost]}}
turns: {lease_ttl: 1}
"""
ORDER = ["task", "artifactUpdate", "statusUpdate"]


@pytest.fixture(autouse=True)
def _configuration(folder: Path) -> None:
    (folder / "config.yaml").write_text(CONFIG + MORE)


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def send(server: Server, hook: Receiver, name: str = "m") -> str:
    """The task of a message that brings a webhook."""
    message = {"messageId": name, "contextId": name, "role": "ROLE_USER", "parts": [{"text": "Hello"}]}
    configuration = {"taskPushNotificationConfig": {"url": hook.url}}
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(
            f"{server.url}/v1/agents/assistant/message:send",
            json={"message": message, "configuration": configuration},
        )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["task"]["id"])


async def kill(server: Server) -> None:
    server.process.send_signal(signal.SIGKILL)
    await server.process.wait()


def kind(got: Got) -> str:
    return str(next(iter(got.json)))


def task_of(got: Got) -> str:
    said: dict[str, Any] = next(iter(got.json.values()))
    return str(said.get("taskId") or said["id"])


def is_last(got: Got) -> bool:
    said: dict[str, Any] = next(iter(got.json.values()))
    return "status" in said and said["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize("beside", [True, False], ids=["another beside it", "another after it"])
async def test_what_a_killed_server_was_telling_is_told_by_another(
    serve: Callable[..., Awaitable[Server]], hook: Receiver, beside: bool
) -> None:
    one = await serve()
    two = await serve() if beside else None
    hook.react(Reaction(), Reaction(holds=True))
    await send(one, hook)
    await hook.until(2)
    await kill(one)
    two = two or await serve()
    hook.release()
    got = await hook.until_true(lambda got: is_last(got[-1]))
    assert list(dict.fromkeys(map(kind, got))) == ORDER
    assert len({each.headers["webhook-id"] for each in got}) == 3
    if not beside:
        assert list(map(kind, got)) == ["task", "artifactUpdate", "artifactUpdate", "statusUpdate"]


async def test_kills_at_any_moment_lose_nothing_and_disorder_nothing(
    serve: Callable[..., Awaitable[Server]], hook: Receiver
) -> None:
    dice = random.Random(7)
    hook.react(*(Reaction(dice.choice([204, 204, 200, 500]), drops=dice.random() < 0.1) for _ in range(40)))
    tasks: list[str] = []
    for number in range(3):
        server = await serve()
        tasks += [await send(server, hook, f"{number}.{each}") for each in range(4)]
        await hook.until(len(hook.got) + dice.randrange(1, 5))
        await kill(server)
    await serve()

    def ended(got: list[Got]) -> bool:
        return {task_of(each) for each in got if is_last(each)} == set(tasks)

    await hook.until_true(ended)
    for task_id in tasks:
        told = [each for each in hook.got if task_of(each) == task_id]
        places = [ORDER.index(kind(each)) for each in told]
        assert places == sorted(places)
        # A server that was killed before it told that the task works tells it all the same.
        assert list(dict.fromkeys(map(kind, told))) == ORDER


async def test_webhooks_inside_are_refused_unless_they_are_allowed(
    serve: Callable[..., Awaitable[Server]], folder: Path, hook: Receiver
) -> None:
    (folder / "config.yaml").write_text(CONFIG)
    server = await serve()
    url = f"{server.url}/v1/agents/assistant/message:send"
    for webhook in (
        hook.url,
        hook.url.replace("http:", "https:"),
        "https://169.254.169.254/latest/meta-data",
    ):
        body = {
            "message": {"role": "user", "parts": [{"text": "Hello"}]},
            "configuration": {"pushNotificationConfig": {"url": webhook}},
        }
        async with httpx.AsyncClient(timeout=60) as http:
            refused = await http.post(url, json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid")
    assert hook.connections == 0
