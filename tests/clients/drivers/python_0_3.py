"""Python's a2a-sdk of A2A 0.3: `python_0_3.py URL TRANSPORT GRPC_ADDRESS`."""

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc
import httpx
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.client.client import ClientEvent
from a2a.types import (
    AgentInterface,
    Artifact,
    Message,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskIdParams,
    TaskQueryParams,
    TaskStatusUpdateEvent,
    TextPart,
)
from lines import Order, Seen, carry_out


async def main(url: str, transport: str, grpc_address: str) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        card = await A2ACardResolver(http, url).get_agent_card()
        interfaces = card.additional_interfaces or []
        told = {each.transport: each.url for each in interfaces}
        # The test breaks connections to this address, and not to the one in the card.
        kept = [each for each in interfaces if each.transport != "GRPC"]
        card.additional_interfaces = [*kept, AgentInterface(url=grpc_address, transport="GRPC")]

        def client(*, streaming: bool) -> Client:
            config = ClientConfig(
                streaming=streaming,
                httpx_client=http,
                grpc_channel_factory=grpc.aio.insecure_channel,
                supported_transports=[transport],
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
            yield seen_task(await whole.get_task(TaskQueryParams(id=order["task"])))

        async def cancel(order: Order) -> AsyncIterator[Seen]:
            yield seen_task(await whole.cancel_task(TaskIdParams(id=order["task"])))

        async def resubscribe(order: Order) -> AsyncIterator[Seen]:
            async for event in streams.resubscribe(TaskIdParams(id=order["task"])):
                yield seen(event)

        await carry_out(
            {
                "card": read_card,
                "send": send,
                "stream": stream,
                "get": get,
                "cancel": cancel,
                "resubscribe": resubscribe,
            }
        )


def said(order: Order) -> Message:
    return Message(
        message_id=order["message"],
        context_id=order["context"],
        role=Role.user,
        parts=[Part(root=TextPart(text=order["text"]))],
    )


def seen(event: ClientEvent | Message) -> Seen:
    match event:
        case (_, TaskArtifactUpdateEvent() as update):
            return {
                "kind": "artifact",
                "task": update.task_id,
                "context": update.context_id,
                "text": text_of(update.artifact),
                "append": bool(update.append),
                "last": bool(update.last_chunk),
            }
        case (_, TaskStatusUpdateEvent() as changed):
            return {
                "kind": "status",
                "task": changed.task_id,
                "context": changed.context_id,
                "state": changed.status.state.value,
            }
        case (Task() as task, None):
            return seen_task(task)
        case other:
            raise ValueError(f"an event of another kind: {other}")


def seen_task(task: Task) -> Seen:
    text = "".join(map(text_of, task.artifacts or []))
    return {
        "kind": "task",
        "task": task.id,
        "context": task.context_id,
        "state": task.status.state.value,
        "text": text,
    }


def text_of(artifact: Artifact) -> str:
    return "".join(part.root.text for part in artifact.parts if isinstance(part.root, TextPart))


asyncio.run(main(*sys.argv[1:]))
