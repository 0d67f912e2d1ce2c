"""google-adk's RemoteA2aAgent, in a process of its own, against `hector serve` on SQLite.

It has no gRPC, and can neither cancel a task nor subscribe to one again: who lost the connection sends the
next message.
"""

from itertools import count
from typing import Any

import httpx
import pytest

from tests.clients.conftest import Site
from tests.clients.driver import ADK, Driver, Seen
from tests.fakes.openai_server import Behaviour

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize(
        "client",
        [pytest.param((ADK, transport), id=transport) for transport in ("HTTP+JSON", "JSONRPC")],
        indirect=True,
    ),
]

_numbers = count(1)


@pytest.fixture
def context() -> str:
    """ADK's own session, another one for each test."""
    return f"c-{next(_numbers)}"


async def stored(site: Site, events: list[Seen]) -> list[str]:
    """What the session of these events holds."""
    (session,) = {event["context"] for event in events if event["context"]}
    async with httpx.AsyncClient(trust_env=False) as http:
        found: Any = (await http.get(f"{site.agent}/sessions/{session}")).json()
    return [message["parts"][0]["text"] for message in found["messages"]]


async def test_it_learns_from_the_card_what_the_agent_does(client: Driver, context: str) -> None:
    await client.begin("stream", text="My cat is Tom.", context=context).rest()
    assert "assistant, an agent served by Hector" in (await client.do("card"))["description"]


async def test_it_gets_the_reply_whole_where_it_is_told_not_to_stream(client: Driver, context: str) -> None:
    event = await client.do("send", text="My cat is Tom.", context=context)
    assert (event["text"], event["partial"], event["final"]) == ("Got it: My cat is Tom.", False, True)
    history = await client.do("history", how="send", context=context)
    assert history["texts"] == ["My cat is Tom.", "Got it: My cat is Tom."]


async def test_it_streams_the_reply(client: Driver, context: str, site: Site) -> None:
    site.model.behave(Behaviour(text="one two three", chunks=3))
    events = await client.begin("stream", text="Count", context=context).rest()
    assert not [event for event in events if event["error"]]
    # As final it gives the last piece alone (`_handle_a2a_response`: `partial = not update.last_chunk`), here
    # the empty one that ends the reply, and its own session keeps nothing else. The server's session has all,
    # and is what counts for the next turn.
    assert "".join(event["text"] for event in events if event["partial"]) == "one two three"
    assert (await client.do("history", how="stream", context=context))["texts"] == ["Count"]
    assert await stored(site, events) == ["Count", "one two three"]


@pytest.mark.parametrize("how", ["send", "stream"])
async def test_a_conversation_goes_on_when_the_server_was_killed(
    client: Driver, how: str, context: str, site: Site
) -> None:
    events = await client.begin(how, text="My cat is Tom.", context=context).rest()
    await site.die_and_start_again()
    again = await client.begin(how, text="What is my cat?", context=context).rest()
    assert not [event for event in again if event["error"]]
    assert "You told me: My cat is Tom." in {event["text"] for event in again}
    assert len(await stored(site, [*events, *again])) == 4


async def test_a_stream_whose_connection_broke_is_told_and_the_conversation_goes_on(
    client: Driver, context: str, site: Site
) -> None:
    site.model.behave(Behaviour(text="one two three", chunks=3, hold_after=1))
    streaming = client.begin("stream", text="Count", context=context)
    events: list[Seen] = []
    while not (events and events[-1]["partial"]):
        event = await streaming.next()
        assert event
        events.append(event)
    site.cut_connections()
    assert [event["error"] for event in await streaming.rest()] != [None]
    site.model.release()
    again = await client.begin("stream", text="My cat is Tom.", context=context).rest()
    assert not [event for event in again if event["error"]]
    said = ["Count", "one two three", "My cat is Tom.", "Got it: My cat is Tom."]
    assert await stored(site, [*events, *again]) == said
