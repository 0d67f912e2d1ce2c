"""Clients that talk to whatever servers there are, and repeat what was not answered."""

import asyncio
import contextlib
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from tests.chaos.history import Answer, Delete, History, Place, Send, text_of
from tests.chaos.runs import ANSWERED, PAUSED
from tests.chaos.servers import AGENTS, USERS, Hector, Server, parse_call, parse_task, token_of
from tests.chaos.streams import Reading, blocks

GIVE_UP = 60.0
"""Seconds after which a request without an answer is an anomaly."""
SLOTS = 2
"""Session ids that are talked to at one time, by every user with every agent."""
_LONGEST = 30
"""Messages, after which a slot goes on with another session: what is sent to the model stays short."""
_LONGEST_PAUSE = 0.1
_PATIENCE = 0.4
"""Seconds after which a message is sent to another server as well; doubled each time."""
_OUTCOME_UNKNOWN = "outcome_unknown"
"""The code of an error that says so."""
_LEFT = 0.15
"""How many questions are never answered."""
_BETWEEN = 0.25
"""How often something else is said before."""
_RIVALS = 0.15
"""How often a question is answered with two messages at once, of which one comes too late."""
_STREAMS = 0.4
"""How many messages are answered as streams."""
_BREAKS = 0.15
"""How likely a stream is broken off after an event."""
_HOT = 4
"""How much more often two of the places are chosen, so that messages wait there."""


@dataclass(frozen=True, slots=True)
class Message:
    place: Place
    text: str
    id: str
    task: str | None = None
    """The turn that it answers, which had asked something."""


class Clients:
    def __init__(self, history: History, servers: Callable[[], Sequence[Server]], rng: random.Random) -> None:
        self._history = history
        self._servers = servers
        self._rng = rng
        self._sessions = [f"s{slot}" for slot in range(SLOTS)]
        self._generation = 0
        self._said: dict[Place, int] = {}
        self._changed = asyncio.Event()
        self._answered = asyncio.Event()
        self._in_doubt: defaultdict[Server, list[Send | Delete]] = defaultdict(list)
        """Requests without an answer: what they asked for may still be done."""
        self._http = httpx.AsyncClient(timeout=GIVE_UP, limits=httpx.Limits(max_connections=None))
        self._open: set[asyncio.Task[Send]] = set()
        """Requests, also those whose answer has come from another server meanwhile."""
        self.stopping = False
        self.unanswered: list[str] = []
        self.untrue: list[str] = []
        """What streams told that no stream may tell."""
        self.calls = 0
        self.streams = self.reconnects = self.resets = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()

    def server_is_ready(self) -> None:
        self._changed.set()

    def server_is_gone(self, server: Server) -> None:
        """No request to it is in doubt any more."""
        server.gone = True
        for request in self._in_doubt.pop(server, []):
            request.end = time.monotonic()

    async def until_answered(self, count: int, *, patience: float) -> None:
        """Until so many more messages are acknowledged, or so many seconds have passed."""
        wanted = self._history.acknowledged + count
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._history.acknowledged < wanted:
                    self._answered.clear()
                    await self._answered.wait()

    def choose_place(self, rng: random.Random | None = None) -> Place:
        places = [
            Place(agent, user, session) for session in self._sessions for agent in AGENTS for user in USERS
        ]
        hot = {Place(agent, USERS[0], self._sessions[0]) for agent in (AGENTS[0], AGENTS[-1])}
        return (rng or self._rng).choices(places, [_HOT if place in hot else 1 for place in places])[0]

    async def work(self) -> None:
        """Until `stopping`; what was begun then is still brought to its end."""
        while not self.stopping:
            message = self._next_message(self.choose_place())
            answer = await self._say(message)
            while answer and answer.state in PAUSED and self._rng.random() > _LEFT:
                answer = await self._reply(message.place, answer.turn_id)
            await asyncio.sleep(self._rng.uniform(0, _LONGEST_PAUSE))

    async def _say(self, message: Message) -> Answer | None:
        """Until it is answered; sometimes at two servers at once, and sometimes again afterwards."""
        if self._rng.random() < 0.15:
            await self._send_twice_at_once(message)
        answer = await self._deliver(message)
        if self._rng.random() < 0.15:
            await self._deliver(message)
        return answer

    async def _reply(self, place: Place, task: str) -> Answer | None:
        """Answer what was asked; sometimes something else is said before, or somebody else answers, too."""
        if self._rng.random() < _BETWEEN:
            await self._deliver(self._next_message(place))
        rival = self._deliver(self._next_message(place, task)) if self._rng.random() < _RIVALS else None
        saying = self._say(self._next_message(place, task))
        answer, *_ = await asyncio.gather(saying, *([rival] if rival else []))
        return answer

    async def settle(self) -> None:
        """Until no request is open."""
        while self._open:
            await asyncio.wait(self._open)

    async def delete(self, place: Place) -> None:
        """Until it is sure that the session was deleted, or was not there."""
        while True:
            server = await self._server()
            delete = self._history.delete(Delete(place, time.monotonic()))
            url = f"{server.url}/v1/agents/{place.agent}/sessions/{place.session}"
            try:
                response = await self._http.delete(url, headers=_headers(place))
            except httpx.TransportError:
                self._doubt(delete, server)
                continue
            self._end(delete, server, response)
            if response.status_code in {204, 404}:
                delete.found = response.status_code == 204
                return
            await self._wait_a_little()

    async def call(self, hector: Hector, *, kill_after: float | None = None) -> None:
        """A message by `hector call`, which may be killed; it is not repeated, as it has no message id."""
        message = self._next_message(self.choose_place())
        send = self._history.send(Send(message.place, message.text, time.monotonic()))
        process, way = await hector.call(*message.place, message.text)
        self.calls += 1
        output = asyncio.create_task(process.communicate())
        try:
            async with asyncio.timeout(kill_after if kill_after is not None else GIVE_UP):
                await asyncio.shield(output)
        except TimeoutError:
            process.kill()
            if kill_after is None:
                self.unanswered.append(f"{message.text} by hector call")
        shown, _ = await output
        if not await hector.until_gone(way):
            self.unanswered.append(f"{message.text}: its connections outlive hector call")
        send.end = time.monotonic()
        if process.returncode in {0, 1}:
            send.answer = parse_call(shown)

    def _next_message(self, place: Place, task: str | None = None) -> Message:
        number = self._said[place] = self._said.get(place, 0) + 1
        if number == _LONGEST and place.session in self._sessions:
            self._generation += 1
            slot = self._sessions.index(place.session)
            self._sessions[slot] = f"s{slot}.{self._generation}"
        # The same ids in every session, so that one that is looked for in another's would be found.
        return Message(place, text_of(place, number), f"message-{number}", task)

    async def _send_twice_at_once(self, message: Message) -> None:
        first = await self._server()
        others = [server for server in self._servers() if server.serving and server is not first]
        await asyncio.gather(*(self._send(message, server) for server in (first, *(others or [first]))))

    async def _deliver(self, message: Message) -> Answer | None:
        """Send it, to others too if that takes long, until it is answered; sometimes again if it failed.

        None if it was refused.
        """
        deadline = time.monotonic() + GIVE_UP
        patience, pending = _PATIENCE, set[asyncio.Task[Send]]()
        streams = self._rng.random() < _STREAMS
        while time.monotonic() < deadline:
            ask = self._stream if streams else self._send
            sending = asyncio.create_task(ask(message, await self._server()))
            self._open.add(sending)
            sending.add_done_callback(self._open.discard)
            done, pending = await asyncio.wait(
                {sending, *pending}, timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            patience *= 2
            for ended in done:
                send = ended.result()
                if send.answer and (send.answer.state in ANSWERED or self._rng.random() < 0.5):
                    return send.answer
                if send.refusal and send.refusal.startswith("4"):
                    return None
        self.unanswered.append(message.text)
        return None

    async def _server(self) -> Server:
        while not (serving := [server for server in self._servers() if server.serving]):
            self._changed.clear()
            await self._changed.wait()
        return self._rng.choice(serving)

    async def _stream(self, message: Message, server: Server) -> Send:
        """The answer as it is told in pieces; now and then the stream breaks, and goes on elsewhere."""
        reading = Reading()
        self.streams += 1
        while True:
            send = await self._read_on(message, server, reading)
            if reading.answer and not send.refusal:
                send.answer = reading.answer
                self._history.acknowledged += 1
                self._answered.set()
            if reading.answer or reading.error or send.refusal or send.end == math.inf or server.killed:
                break
            if self._http.is_closed:  # the run was broken off
                break
            self.reconnects += 1
            server = await self._server()
        self.resets += reading.resets
        self.untrue += [f"{message.text}: {fault}" for fault in reading.faults]
        return send

    async def _read_on(self, message: Message, server: Server, reading: Reading) -> Send:
        """One stream of it, to its end or until it breaks."""
        place = message.place
        send = self._history.send(Send(place, message.text, time.monotonic(), task=message.task))
        url = f"{server.url}/v1/agents/{place.agent}/message:stream"
        headers = _headers(place) | ({"last-event-id": reading.place} if reading.place else {})
        try:
            async with self._http.stream("POST", url, json=_said(message), headers=headers) as response:
                if response.status_code != 200:
                    await response.aread()
                    self._end(send, server, response)
                    send.refusal = f"{response.status_code}: {response.text}"
                    await self._wait_a_little()
                    return send
                async for block in blocks(response):
                    # It was taken before this was told, and what is told was so by now.
                    send.end = time.monotonic()
                    reading.take(block)
                    if reading.error:
                        send.refusal = f"503: {reading.error}"
                        send.end = math.inf
                        self._doubt(send, server)
                        break
                    if reading.answer or self._rng.random() < _BREAKS:
                        break
        except httpx.TransportError as error:
            if send.end == math.inf:
                self._doubt(send, server)
            if isinstance(error, httpx.TimeoutException) and not server.killed:
                self.unanswered.append(f"{message.text} at {server.log.name}, as a stream")
        self._history.touch([place])
        return send

    async def _send(self, message: Message, server: Server) -> Send:
        place = message.place
        send = self._history.send(Send(place, message.text, time.monotonic(), task=message.task))
        url = f"{server.url}/v1/agents/{place.agent}/message:send"
        try:
            response = await self._http.post(url, json=_said(message), headers=_headers(place))
        except httpx.TransportError as error:
            self._doubt(send, server)
            if isinstance(error, httpx.TimeoutException) and not server.killed:
                self.unanswered.append(f"{message.text} at {server.log.name}")
            return send
        self._end(send, server, response)
        self._history.touch([place])
        if response.status_code == 200:
            send.answer = parse_task(response.json()["task"])
            self._history.acknowledged += 1
            self._answered.set()
        else:
            send.refusal = f"{response.status_code}: {response.text}"
            await self._wait_a_little()
        return send

    def _end(self, request: Send | Delete, server: Server, response: httpx.Response) -> None:
        if _OUTCOME_UNKNOWN in response.text.lower():
            self._doubt(request, server)
        else:
            request.end = time.monotonic()

    def _doubt(self, request: Send | Delete, server: Server) -> None:
        if server.gone:
            request.end = time.monotonic()
        else:
            self._in_doubt[server].append(request)

    async def _wait_a_little(self) -> None:
        """Before what was refused is tried again."""
        await asyncio.sleep(self._rng.uniform(0, _LONGEST_PAUSE))


def _said(message: Message) -> dict[str, object]:
    said = {
        "messageId": message.id,
        "contextId": message.place.session,
        "role": "ROLE_USER",
        "parts": [{"text": message.text}],
    }
    return {"message": said | ({"taskId": message.task} if message.task else {})}


def _headers(place: Place) -> dict[str, str]:
    return {"authorization": f"Bearer {token_of(place.user)}"}
