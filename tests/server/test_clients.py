"""a2a-sdk's own client against the application, in both versions."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    TaskState,
)
from a2a.utils.errors import InvalidRequestError, TaskNotCancelableError, TaskNotFoundError

from tests.server.site import Site


@pytest.fixture(params=["1.0", "0.3"])
def spoken(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    return version


@pytest.fixture(params=["HTTP+JSON", "JSONRPC"])
def binding(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def client(spoken: str, binding: str, site: Site) -> Client:
    """Made from the agent's card, which is cut down to one version."""
    card = await A2ACardResolver(site.http, "http://localhost:8091/v1/agents/a").get_agent_card()
    kept = [each for each in card.supported_interfaces if each.protocol_version == spoken]
    del card.supported_interfaces[:]
    card.supported_interfaces.extend(kept)
    config = ClientConfig(httpx_client=site.http, supported_protocol_bindings=[binding])
    return ClientFactory(config).create(card)


def message(text: str, message_id: str = "m", **more: Any) -> SendMessageRequest:
    said = Message(
        message_id=message_id, role=Role.ROLE_USER, parts=[Part(text=text)], context_id="s", **more
    )
    return SendMessageRequest(message=said)


async def told(answer: AsyncIterator[StreamResponse]) -> list[StreamResponse]:
    return [event async for event in answer]


async def test_a_client_streams_a_turn(client: Client) -> None:
    found = await told(client.send_message(message("stream 3 hello")))
    kinds = [event.WhichOneof("payload") for event in found]
    assert kinds == ["task", *["artifact_update"] * 4, "status_update"]
    assert "".join(event.artifact_update.artifact.parts[0].text for event in found[1:5]) == "hello"
    assert found[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
    task = await client.get_task(GetTaskRequest(id=found[0].task.id, history_length=5))
    assert (task.context_id, task.artifacts[0].parts[0].text) == ("s", "hello")
    assert [each.role for each in task.history] == [Role.ROLE_USER, Role.ROLE_AGENT]


async def test_a_client_asks_without_a_stream(client: Client) -> None:
    client._config.streaming = False  # type: ignore[attr-defined]
    (answer,) = await told(client.send_message(message("say hello")))
    assert answer.task.status.state == TaskState.TASK_STATE_COMPLETED
    assert answer.task.artifacts[0].parts[0].text == "hello"


async def test_a_client_does_not_wait_and_cancels(client: Client, site: Site) -> None:
    client._config.streaming = False  # type: ignore[attr-defined]
    request = message("wait g")
    request.configuration.return_immediately = True
    (answer,) = await told(client.send_message(request))
    assert answer.task.status.state == TaskState.TASK_STATE_WORKING
    canceled = await client.cancel_task(CancelTaskRequest(id=answer.task.id))
    assert canceled.status.state == TaskState.TASK_STATE_CANCELED


@pytest.mark.parametrize(
    "spoken", ["1.0"], indirect=True
)  # the other tells errors by their HTTP status alone
async def test_a_client_of_1_0_understands_our_errors(client: Client) -> None:
    with pytest.raises(TaskNotFoundError, match="task 'none' not found"):
        await client.get_task(GetTaskRequest(id="none"))
    found = await told(client.send_message(message("say x")))
    with pytest.raises(TaskNotCancelableError, match="is completed"):
        await client.cancel_task(CancelTaskRequest(id=found[0].task.id))
    with pytest.raises(InvalidRequestError, match="message id 'm' was used"):
        await told(client.send_message(message("say y")))
