"""The Agent Development Kit's agent that speaks for one elsewhere: `adk.py URL TRANSPORT GRPC_ADDRESS`."""

import asyncio
import sys
import warnings
from collections.abc import AsyncIterator

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from lines import Order, Seen, carry_out

warnings.filterwarnings("ignore", message=r"\[EXPERIMENTAL\]")

from google.adk.agents.remote_a2a_agent import RemoteA2aAgent  # noqa: E402 - it warns when imported
from google.adk.events import Event  # noqa: E402
from google.adk.runners import InMemoryRunner  # noqa: E402
from google.genai import types  # noqa: E402

APP, USER = "app", "somebody"


async def main(url: str, transport: str, _: str) -> None:
    # Given the card's URL, it refuses the card if one URL in it has another origin than that
    # (`_validate_card_rpc_targets`), as the one of gRPC has, which it does not even speak.
    async with httpx.AsyncClient() as http:
        card = await A2ACardResolver(http, url).get_agent_card()

    def runner(*, streaming: bool) -> tuple[RemoteA2aAgent, InMemoryRunner]:
        config = ClientConfig(streaming=streaming, supported_protocol_bindings=[transport])
        agent = RemoteA2aAgent("remote", agent_card=card, a2a_client_factory=ClientFactory(config))
        return agent, InMemoryRunner(agent, app_name=APP)

    _, whole = runner(streaming=False)
    streaming_agent, streams = runner(streaming=True)

    async def talk(runner: InMemoryRunner, order: Order) -> AsyncIterator[Seen]:
        place = {"app_name": APP, "user_id": USER, "session_id": order["context"]}
        if await runner.session_service.get_session(**place) is None:
            await runner.session_service.create_session(**place)
        message = types.Content(role="user", parts=[types.Part(text=order["text"])])
        async for event in runner.run_async(user_id=USER, session_id=order["context"], new_message=message):
            yield seen(event)

    async def read_card(order: Order) -> AsyncIterator[Seen]:
        yield {"kind": "card", "description": streaming_agent.description}

    async def history(order: Order) -> AsyncIterator[Seen]:
        runner = whole if order["how"] == "send" else streams
        session = await runner.session_service.get_session(
            app_name=APP, user_id=USER, session_id=order["context"]
        )
        yield {"kind": "history", "texts": [text for event in session.events if (text := text_of(event))]}

    await carry_out(
        {
            "card": read_card,
            "send": lambda order: talk(whole, order),
            "stream": lambda order: talk(streams, order),
            "history": history,
        }
    )


def seen(event: Event) -> Seen:
    about = event.custom_metadata or {}
    return {
        "kind": "event",
        "task": about.get("a2a:task_id"),
        "context": about.get("a2a:context_id"),
        "text": text_of(event),
        "partial": bool(event.partial),
        "final": event.is_final_response(),
        "error": event.error_message,
    }


def text_of(event: Event) -> str:
    parts = event.content.parts if event.content else None
    return "".join(part.text or "" for part in parts or [])


asyncio.run(main(*sys.argv[1:]))
