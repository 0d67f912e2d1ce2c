"""A server in a thread, two users who have something there, and what must hold whatever it is sent."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from a2a.types import a2a_pb2

from hector.llm.scripted import ScriptedModel
from hector.runtime.push.deliveries import PushSettings
from hector.runtime.push.targets import Targets
from tests.server.contract.serving import Served, serving
from tests.server.site import ALICE, BOB, bearer, tokens

SECRET = "what only Alice may know"
URL = "/v1/agents/a"
_LIMIT = 15.0
"""Seconds for an answer, with all of its stream: what takes longer hangs."""


class _Errors(logging.Handler):
    """What is logged as an error, and what is logged with a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.ERROR or record.exc_info or "Traceback" in text:
            self.found.append(f"{record.name}: {text}")


@dataclass(frozen=True)
class Target:
    http: httpx.Client
    """Signed in as Bob."""
    channel: grpc.Channel
    model: ScriptedModel
    ids: Mapping[str, str]
    """Of what there is: a task, a context and a configuration of each user's."""
    errors: _Errors

    def check_log(self) -> None:
        found, self.errors.found = self.errors.found, []
        assert not found

    def check_alive(self) -> None:
        """It answers, and Alice has what she had."""
        answer = self.http.post(f"{URL}/message:send", json=_message("say fine"))
        assert answer.json()["task"]["artifacts"][0]["parts"] == [{"text": "fine"}]
        mine = self.http.get(f"{URL}/tasks/{self.ids['task of alice']}", headers=bearer(ALICE))
        assert SECRET in mine.text
        self.check_log()

    def check_told(self) -> None:
        """What was taken over one transport is told over another: Bob's tasks, with all that was said."""
        list_tasks: Any = self.channel.unary_unary(
            "/lf.a2a.v1.A2AService/ListTasks",
            request_serializer=a2a_pb2.ListTasksRequest.SerializeToString,
            response_deserializer=a2a_pb2.ListTasksResponse.FromString,
        )
        metadata = (("authorization", f"Bearer {BOB}"),)
        asked = a2a_pb2.ListTasksRequest(tenant="a", history_length=10, include_artifacts=True)
        more = True
        while more:
            page = list_tasks(asked, metadata=metadata, timeout=_LIMIT)
            asked.page_token = page.next_page_token
            more = bool(page.next_page_token)
        self.check_log()

    def check_answer(self, answer: httpx.Response) -> None:
        """Of HTTP, whatever was asked."""
        assert answer.status_code < 500, answer.text
        assert "Traceback" not in answer.text
        assert SECRET not in answer.text
        self.check_log()


def _message(text: str, **more: Any) -> Any:
    said = {"messageId": "of the check", "contextId": "checks", "role": "user", "parts": [{"text": text}]}
    return {"message": said | more}


def check_details(details: Any, code: Any, wrong: Any) -> None:
    """Of an error; `wrong` is the code of what has a wrong field."""
    assert all(each["@type"].startswith("type.googleapis.com/google.rpc.") for each in details)
    assert details[0]["reason"]
    if code == wrong:
        (violations,) = [each["fieldViolations"] for each in details if "fieldViolations" in each]
        assert violations[0]["field"]
        assert violations[0]["description"]


@contextmanager
def fuzzed() -> Iterator[Target]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    thread.start()
    opened = serving(auth=tokens(), default_agent="a", push=PushSettings(Targets(["localhost"])))
    try:
        served = asyncio.run_coroutine_threadsafe(opened.__aenter__(), loop).result(30)
        try:
            with (
                httpx.Client(base_url=served.server.url, timeout=_LIMIT, headers=bearer(BOB)) as http,
                grpc.insecure_channel(served.server.grpc_address) as channel,
            ):
                yield Target(http, channel, served.model, _begin(served, http), errors)
        finally:
            asyncio.run_coroutine_threadsafe(opened.__aexit__(None, None, None), loop).result(30)
    finally:
        logging.getLogger().removeHandler(errors)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _begin(served: Served, http: httpx.Client) -> Mapping[str, str]:
    ids: dict[str, str] = {}
    for user, token, text in (("alice", ALICE, f"say {SECRET}"), ("bob", BOB, "say nothing")):
        said = _message(text, messageId=f"m-{user}", contextId=f"c-{user}")
        task = http.post(f"{URL}/message:send", json=said, headers=bearer(token)).json()["task"]
        config = {"id": f"p-{user}", "url": "http://localhost:1/hook"}
        made = http.post(
            f"{URL}/tasks/{task['id']}/pushNotificationConfigs",
            json=config,
            headers=bearer(token) | {"a2a-version": "1.0"},
        )
        assert made.status_code == 200, made.text
        ids |= {
            f"task of {user}": task["id"],
            f"context of {user}": f"c-{user}",
            f"message of {user}": f"m-{user}",
            f"configuration of {user}": f"p-{user}",
        }
    return ids


def events(answer: httpx.Response) -> list[Any]:
    lines = answer.text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
