"""Servers on machines of their own: they share a database and nothing else, and their networks fail.

A machine is a network namespace with a folder of its own. A cable that is cut is silence: no connection ends,
as each does where a process dies or a proxy drops it.
"""

import asyncio
import errno
import socket
from typing import Any

import httpx

from tests.chaos.streams import Reading, blocks
from tests.e2e.over_http import Client, reply
from tests.fakes.openai_server import Behaviour
from tests.machines.conftest import Site
from tests.machines.network import CABLES, Machine
from tests.machines.serving import HTTP_PORT

TURNS = 10
HELLO = "Hello"
LOST = "said in vain"
"""By the model to a machine that is not to answer with it."""


async def test_two_machines_share_a_session(site: Site) -> None:
    model = site.models["ant"]
    texts = [f"number {number}" for number in range(TURNS)]
    model.behave(Behaviour(hold=True))
    first = site.start(site.at_one.post(texts[0], agent="ant", message_id="0"))
    await model.until(lambda: model.held == 1)
    tasks = [await submit(site.at_other, texts[0], "0")]
    for number in range(1, TURNS):
        there = (site.at_one, site.at_other)[number % 2]
        tasks.append(await submit(there, texts[number], str(number)))
    assert [state for _, state in tasks] == ["TASK_STATE_WORKING"] + ["TASK_STATE_SUBMITTED"] * (TURNS - 1)
    repeats = [
        site.start((site.at_other, site.at_one)[number % 2].post(text, agent="ant", message_id=str(number)))
        for number, text in enumerate(texts)
    ]
    model.release()
    answers = await asyncio.gather(*repeats)
    assert [id_of(answer) for answer in answers] == [task for task, _ in tasks]
    assert id_of(await first) == tasks[0][0]
    replies = [reply(answer) for answer in answers]
    assert replies == [f"Got it: {text}" for text in texts]
    said = zip(texts, replies, strict=True)
    assert await site.tables.texts("ant") == [text for turn in said for text in turn]
    # Each turn is sent those before it, and none was run twice.
    assert [users_words(body) for body in model.bodies] == [texts[: number + 1] for number in range(TURNS)]


async def test_a_machine_that_is_cut_off_loses_its_turns_and_writes_nothing_more(site: Site) -> None:
    """Of its turns one gets its answer while the database is out of reach; the other still waits for it."""
    ant, bee = site.models.values()
    for model in (ant, bee):
        model.behave(Behaviour(text=LOST, hold=True), Behaviour(text="said by the other"))
    reading, told = Reading(), asyncio.Event()
    listening = site.start(listen(site.at_one, "ant", reading, told))
    waiting = site.start(site.at_one.post(HELLO, agent="bee", message_id="m"))
    await ant.until(lambda: ant.held == 1)
    await bee.until(lambda: bee.held == 1)
    before = await site.tables.replicas()

    site.one.machine.cut("store")
    outcomes = [await site.at_other.post(HELLO, agent=agent, message_id="m") for agent in site.models]
    ant.release()
    await told.wait()
    written = await site.tables.everything()
    site.one.machine.heal("store")

    await listening
    assert reading.answer
    assert (reading.answer.turn_id, reading.text) == (id_of(outcomes[0]), "said by the other")
    assert (reading.resets, reading.faults) == (1, [])
    assert (id_of(await waiting), reply(await waiting)) == (id_of(outcomes[1]), "said by the other")
    await bee.until(lambda: bee.disconnects == 1)
    await site.one.logged("others took this replica for dead; its turns are theirs now, and it starts anew")
    for outcome in outcomes:
        said = await site.one.logged(f"turn {id_of(outcome)} of agent ")
        assert "is not this replica's any longer; nothing more is written for it" in said
    after = await site.tables.replicas()
    assert after[site.other.name].id == before[site.other.name].id
    assert after[site.one.name].id != before[site.one.name].id
    assert await site.tables.everything() == written
    for agent in site.models:
        assert await site.tables.attempts(agent) == [("completed", 2)]
        assert await site.tables.texts(agent) == [HELLO, "said by the other"]
        assert await site.at_one.say("And on", agent=agent) == "Got it: And on"


async def test_the_turn_of_a_server_that_is_killed_goes_on_at_another_machine(site: Site) -> None:
    await begin_in_vain(site)
    await site.one.kill()
    await goes_on_at_the_other(site)


async def test_a_machine_that_dies_while_it_is_cut_off_holds_nothing_up(site: Site) -> None:
    """The database hears of neither: the connections stay, and with them the lock that says that it lives."""
    await begin_in_vain(site)
    lock = await site.tables.lock_of(site.one.name)
    site.one.machine.cut("store")
    await site.one.kill()
    await goes_on_at_the_other(site)
    assert await site.tables.is_held(lock), "it was not by its lock that it was found dead"


async def test_a_machine_that_dies_in_a_transaction_holds_nothing_up(site: Site) -> None:
    """The database goes on with the statement that it has, and locks the session for one who is gone."""
    await begin_in_vain(site)
    # Or that would be what is blocked, in place of the turn's end.
    await site.tables.until_told()
    async with site.tables.db.connected() as execute:
        await execute("BEGIN")
        await execute("SELECT id FROM sessions WHERE id = 's' FOR UPDATE")
        site.models["ant"].release()
        await site.tables.until_blocked(site.one.machine.address("store"))
        site.one.machine.cut("store")
        await site.one.kill()
        await execute("ROLLBACK")
    answer = await site.at_other.say(HELLO, agent="ant", message_id="m")
    # The end of a turn is one statement on PostgreSQL, and was committed; on others it was rolled back.
    end = (LOST, 1) if site.tables.db.driver == "postgres" else ("said by the other", 2)
    assert await site.tables.attempts("ant") == [("completed", end[1])]
    assert answer == end[0]
    assert await site.tables.texts("ant") == [HELLO, answer]
    assert await site.at_other.say("And on", agent="ant")


async def test_machines_that_do_not_reach_each_other_go_on(site: Site) -> None:
    one, other = site.one.machine, site.other.machine
    for cable in CABLES:
        assert await reaches(one, other.address(cable))
    before = await site.tables.replicas()
    one.part(other)
    for cable in CABLES:
        assert not await reaches(one, other.address(cable))
    for number in range(TURNS):
        there = (site.at_one, site.at_other)[number % 2]
        assert await there.say(f"number {number}", agent="ant") == f"Got it: number {number}"
    # For longer than the silence by which one is taken for dead.
    await site.tables.until_beaten(before, 4)
    after = await site.tables.replicas()
    assert {name: replica.id for name, replica in after.items()} == {
        name: replica.id for name, replica in before.items()
    }
    assert len(await site.tables.texts("ant")) == 2 * TURNS
    for server in (site.one, site.other):
        assert "dead" not in server.log


async def begin_in_vain(site: Site) -> None:
    """A turn at the first machine, in the middle of whose model call something is to happen."""
    model = site.models["ant"]
    model.behave(Behaviour(text=LOST, hold=True), Behaviour(text="said by the other"))
    unheard = site.start(site.at_one.post(HELLO, agent="ant", message_id="m"))
    await model.until(lambda: model.held == 1)
    assert not unheard.done()


async def goes_on_at_the_other(site: Site) -> None:
    assert await site.at_other.say(HELLO, agent="ant", message_id="m") == "said by the other"
    assert await site.tables.attempts("ant") == [("completed", 2)]
    assert await site.tables.texts("ant") == [HELLO, "said by the other"]
    assert list(await site.tables.replicas()) == [site.other.name]
    assert await site.at_other.say("And on", agent="ant") == "Got it: And on"


async def listen(there: Client, agent: str, reading: Reading, told: asyncio.Event) -> None:
    """Read the answer as a stream; `told` is set when it holds what is said in vain."""
    message = {"messageId": "m", "contextId": "s", "role": "ROLE_USER", "parts": [{"text": HELLO}]}
    url = f"/v1/agents/{agent}/message:stream"
    async with there.http.stream("POST", url, json={"message": message}) as response:
        assert response.status_code == 200
        async for block in blocks(response):
            reading.take(block)
            if reading.text == LOST:
                told.set()


async def submit(there: Client, text: str, message_id: str) -> tuple[str, str]:
    """The task, without waiting for its end, and its state."""
    response = await there.post(text, agent="ant", message_id=message_id, configuration={"blocking": False})
    task = response.json()["task"]
    return task["id"], task["status"]["state"]


async def reaches(machine: Machine, address: str) -> bool:
    """Its server, over HTTP's port."""
    with machine.namespace.entered():
        connection = socket.socket()
    with connection:
        connection.setblocking(False)
        # Milliseconds until the system gives up.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
        try:
            await asyncio.get_running_loop().sock_connect(connection, (address, HTTP_PORT))
        except OSError as error:
            # Silence, and no refusal.
            if error.errno not in (errno.ETIMEDOUT, errno.EHOSTUNREACH):
                raise
            return False
        return True


def id_of(response: httpx.Response) -> str:
    return str(response.json()["task"]["id"])


def users_words(body: Any) -> list[str]:
    """Of all that the model was sent."""
    return [message["content"] for message in body["messages"] if message["role"] == "user"]
