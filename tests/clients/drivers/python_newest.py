"""Python's a2a-sdk of A2A 1.0: `python_newest.py URL TRANSPORT GRPC_ADDRESS`."""

import asyncio
import sys
from collections.abc import AsyncIterator
from functools import partial

import grpc
import httpx
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.types import (
    AgentInterface,
    Artifact,
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskState,
    TaskStatus,
)
from lines import Order, Seen, carry_out


async def main(url: str, transport: str, grpc_address: str) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        card = await A2ACardResolver(http, url).get_agent_card()
        told = {each.protocol_binding: each.url for each in card.supported_interfaces}
        # The test breaks connections to this address, and not to the one in the card.
        kept = [each for each in card.supported_interfaces if each.protocol_binding != "GRPC"]
        del card.supported_interfaces[:]
        card.supported_interfaces.extend(
            [*kept, AgentInterface(url=grpc_address, protocol_binding="GRPC", protocol_version="1.0")]
        )

        def client(*, streaming: bool) -> Client:
            config = ClientConfig(
                streaming=streaming,
                httpx_client=http,
                grpc_channel_factory=grpc.aio.insecure_channel,
                supported_protocol_bindings=[transport],
            )
            return ClientFactory(config).create(card)

        whole, streams = client(streaming=False), client(streaming=True)

        async def read_card(order: Order) -> AsyncIterator[Seen]:
            streaming = card.capabilities.streaming
            yield {"kind": "card", "name": card.name, "streaming": streaming, "urls": told}

        async def send(order: Order) -> AsyncIterator[Seen]:
            async for event in whole.send_message(said(order)):
                yield seen(event)

        async def stream(order: Order) -> AsyncIterator[Seen]:
            async for event in streams.send_message(said(order)):
                yield seen(event)

        async def get(order: Order) -> AsyncIterator[Seen]:
            yield seen_task(await whole.get_task(GetTaskRequest(id=order["task"])))

        async def cancel(order: Order) -> AsyncIterator[Seen]:
            yield seen_task(await whole.cancel_task(CancelTaskRequest(id=order["task"])))

        async def resubscribe(order: Order) -> AsyncIterator[Seen]:
            async for event in streams.subscribe(SubscribeToTaskRequest(id=order["task"])):
                yield seen(event)

        await carry_out(
            {
                "card": read_card,
                "send": send,
                "stream": stream,
                "get": get,
                "list": partial(pages, whole),
                "cancel": cancel,
                "resubscribe": resubscribe,
            }
        )


async def pages(client: Client, order: Order) -> AsyncIterator[Seen]:
    asked = ListTasksRequest(
        context_id=order["context"],
        status=TaskState.TASK_STATE_COMPLETED,
        page_size=order["size"],
        include_artifacts=True,
        history_length=1,
    )
    asked.status_timestamp_after.FromJsonString("2026-01-01T00:00:00Z")
    while True:
        page = await client.list_tasks(asked)
        tasks = list(map(seen_task, page.tasks))
        yield {"kind": "page", "tasks": tasks, "size": page.page_size, "total": page.total_size}
        if not page.next_page_token:
            return
        asked.page_token = page.next_page_token


def said(order: Order) -> SendMessageRequest:
    message = Message(
        message_id=order["message"],
        context_id=order["context"],
        role=Role.ROLE_USER,
        parts=[Part(text=order["text"])],
    )
    return SendMessageRequest(message=message)


def seen(event: StreamResponse) -> Seen:
    match event.WhichOneof("payload"):
        case "task":
            return seen_task(event.task)
        case "artifact_update":
            update = event.artifact_update
            return {
                "kind": "artifact",
                "task": update.task_id,
                "context": update.context_id,
                "text": text_of(update.artifact),
                "append": update.append,
                "last": update.last_chunk,
            }
        case "status_update":
            changed = event.status_update
            return {
                "kind": "status",
                "task": changed.task_id,
                "context": changed.context_id,
                "state": state_of(changed.status),
            }
        case other:
            raise ValueError(f"an event of another kind: {other}")


def seen_task(task: Task) -> Seen:
    text = "".join(map(text_of, task.artifacts))
    return {
        "kind": "task",
        "task": task.id,
        "context": task.context_id,
        "state": state_of(task.status),
        "text": text,
    }


def text_of(artifact: Artifact) -> str:
    return "".join(part.text for part in artifact.parts)


def state_of(status: TaskStatus) -> str:
    return TaskState.Name(status.state).removeprefix("TASK_STATE_").lower()


asyncio.run(main(*sys.argv[1:]))
