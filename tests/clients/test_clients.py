"""The published A2A clients, each in a process of its own, against `hector serve` on SQLite."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count

import pytest

from tests.clients.conftest import Site
from tests.clients.driver import NPM_0_3, NPM_NEWEST, PYTHON_0_3, PYTHON_NEWEST, ClientError, Driver, Seen
from tests.fakes.openai_server import Behaviour

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize(
        "client",
        [
            pytest.param((published, transport), id=f"{published.name}-{transport}")
            for published in (PYTHON_NEWEST, PYTHON_0_3, NPM_NEWEST, NPM_0_3)
            for transport in ("HTTP+JSON", "JSONRPC", "GRPC")
        ],
        indirect=True,
    ),
]

# These have no class for each error, but the status or the code. A2A 0.3 names no shape for errors over REST:
# npm's client looks for a number named `code` at the top of the body, where npm's server puts it.
UNTYPED = {
    (PYTHON_0_3, "HTTP+JSON"): "404 Not Found",
    (PYTHON_0_3, "JSONRPC"): "code=-32001",
    (PYTHON_0_3, "GRPC"): "StatusCode.NOT_FOUND",
    (NPM_0_3, "HTTP+JSON"): "404 Not Found",
}

# Its `FromProto.taskArtifactUpdateEvent` does not copy `append`: each piece seems to replace those before it.
FORGETS_APPEND = ((NPM_0_3, "HTTP+JSON"), (NPM_0_3, "GRPC"))

_numbers = count(1)


def said(text: str, context: str) -> Mapping[str, str]:
    return {"text": text, "context": context, "message": f"m-{next(_numbers)}"}


@pytest.fixture
def context() -> str:
    """Another one for each test: the site is the same for all."""
    return f"c-{next(_numbers)}"


def reply(client: Driver, events: Sequence[Seen]) -> str:
    """What the pieces of a stream make together."""
    text = ""
    for event in events:
        if event["kind"] == "artifact":
            append = event["append"] or (client.published, client.transport) in FORGETS_APPEND
            text = text + event["text"] if append else event["text"]
    return text


def kinds(events: Sequence[Seen]) -> Iterator[str]:
    """Without repeats in a row."""
    last = None
    for event in events:
        if event["kind"] != last:
            last = event["kind"]
            yield last


async def test_it_reads_the_card(client: Driver, site: Site) -> None:
    card = await client.do("card")
    assert (card["name"], card["streaming"]) == ("assistant", True)
    # gRPC's in the words of gRPC, for that is what clients hand it to.
    assert card["urls"] == {"HTTP+JSON": site.agent, "JSONRPC": site.agent, "GRPC": site.own_grpc_address}


async def test_it_sends_a_message_and_gets_the_task_at_its_end(client: Driver, context: str) -> None:
    task = await client.do("send", **said("My cat is Tom.", context))
    assert (task["kind"], task["context"], task["state"]) == ("task", context, "completed")
    assert task["text"] == "Got it: My cat is Tom."
    assert await client.do("get", task=task["task"]) == task


async def test_it_streams_the_reply(client: Driver, context: str, site: Site) -> None:
    site.model.behave(Behaviour(text="one two three", chunks=3))
    events = await client.begin("stream", **said("Count", context)).rest()
    assert list(kinds(events)) == ["task", "artifact", "status"]
    assert {event["task"] for event in events} == {events[0]["task"]}
    assert {event["context"] for event in events} == {context}
    assert (events[0]["state"], events[-1]["state"]) == ("working", "completed")
    assert reply(client, events) == "one two three"
    assert [event["last"] for event in events if event["kind"] == "artifact"][-1]


async def test_a_conversation_goes_on_when_the_server_was_killed(
    client: Driver, context: str, site: Site
) -> None:
    task = await client.do("send", **said("My cat is Tom.", context))
    await site.die_and_start_again()
    again = await client.do("send", **said("What is my cat?", context))
    assert (again["text"], again["context"]) == ("You told me: My cat is Tom.", context)
    assert await client.do("get", task=task["task"]) == task


async def test_it_cancels_a_task(client: Driver, context: str, site: Site) -> None:
    site.model.behave(Behaviour(text="one two three", chunks=3, hold_after=1))
    left = site.model.disconnects
    streaming = client.begin("stream", **said("Count", context))
    first = await streaming.next()
    assert first
    await streaming.next()
    canceled = await client.do("cancel", task=first["task"])
    assert (canceled["task"], canceled["state"]) == (first["task"], "canceled")
    last = (await streaming.rest())[-1]
    assert (last["kind"], last["state"]) == ("status", "canceled")
    await site.model.until(lambda: site.model.disconnects > left)


async def test_a_stream_goes_on_when_its_connection_broke(client: Driver, context: str, site: Site) -> None:
    site.model.behave(Behaviour(text="one two three", chunks=3, hold_after=1))
    streaming = client.begin("stream", **said("Count", context))
    first = await streaming.next()
    assert first
    piece = await streaming.next()
    assert piece
    assert piece["kind"] == "artifact"
    site.cut_connections()
    await streaming.breaks()

    streaming = client.begin("resubscribe", task=first["task"])
    assert await streaming.next() == first
    site.model.release()
    events = await streaming.rest()
    assert reply(client, events) == "one two three"
    assert (events[-1]["kind"], events[-1]["state"]) == ("status", "completed")


async def test_it_understands_that_there_is_no_such_task(client: Driver) -> None:
    words = UNTYPED.get((client.published, client.transport), "^[A-Za-z]*TaskNotFound[A-Za-z]*: ")
    with pytest.raises(ClientError, match=words):
        await client.do("get", task="none")
