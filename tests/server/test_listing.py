"""Lists of tasks over each transport."""

import base64
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import grpc
import pytest
from a2a.types import a2a_pb2
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from google.protobuf.json_format import ParseDict

from hector.domain.errors import InputRequiredError
from hector.domain.turns import TurnPlace
from hector.server.a2a.listing import read_token, write_token
from hector.server.grpc.listener import GrpcListener
from hector.tools.function import FunctionTool
from tests.server.site import ALICE, BOB, Site, StartSite, bearer, said, tokens

V1 = {"A2A-Version": "1.0"}
PATH = "/v1/agents/a/tasks"

List: TypeAlias = Callable[..., Awaitable[Any]]
"""The answer, or the message of the error and the field in it."""


def _query(params: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in params.items()}


async def over_rest(site: Site, token: str | None = None, **params: Any) -> Any:
    headers = V1 | (bearer(token) if token else {})
    answer = await site.http.get(PATH, params=_query(params), headers=headers)
    if answer.is_success:
        return answer.json()
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["details"][0]["reason"] == "INVALID_PARAMS"
    return error["message"], error["field"]


async def over_json_rpc(site: Site, token: str | None = None, **params: Any) -> Any:
    envelope = {"jsonrpc": "2.0", "id": 1, "method": "ListTasks", "params": params}
    headers = bearer(token) if token else {}
    told = (await site.http.post("/v1/agents/a", json=envelope, headers=headers)).json()
    if "result" in told:
        return told["result"]
    assert told["error"]["code"] == -32602
    (violation,) = told["error"]["data"][1]["fieldViolations"]
    return told["error"]["message"], violation["field"]


@pytest.fixture(params=["HTTP+JSON", "JSONRPC"])
def listing(request: pytest.FixtureRequest) -> List:
    """Over HTTP; that gRPC answers alike has tests of its own."""
    return {"HTTP+JSON": over_rest, "JSONRPC": over_json_rpc}[request.param]


@pytest.fixture
async def over_grpc(site: Site) -> AsyncIterator[Any]:
    """The method of a generated client."""
    listener = GrpcListener(site.app._entrance, body_limit=100_000)
    port = await listener.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield A2AServiceStub(channel).ListTasks  # type: ignore[no-untyped-call]
    await listener.stop(0.0)


async def ask(site: Site, text: str, session: str | None = None, **more: Any) -> Any:
    """The task as the store has it; whatever comes next shows a later time."""
    task = await site.ask(text, session, **more)
    task = (await site.http.get(f"{PATH}/{task['id']}", headers=more.get("headers"))).json()
    later = datetime.fromisoformat(task["status"]["timestamp"]) + timedelta(milliseconds=2)
    while datetime.now(UTC) < later:
        pass
    return task


def ids(page: Any) -> list[str]:
    return [task["id"] for task in page["tasks"]]


# --- what is told


async def test_a_page_tells_how_many_there_are_and_that_it_is_the_last(site: Site, listing: List) -> None:
    made = [(await ask(site, f"say {n}", "s"))["id"] for n in range(3)]
    page = await listing(site)
    assert ids(page) == made[::-1]
    assert {name: page[name] for name in page if name != "tasks"} == {
        "nextPageToken": "",
        "pageSize": 50,
        "totalSize": 3,
    }
    assert all(task.keys() == {"id", "contextId", "status"} for task in page["tasks"])


async def test_nothing_is_a_page_too(site: Site, listing: List) -> None:
    page = await listing(site, contextId="none")
    assert page == {"tasks": [], "nextPageToken": "", "pageSize": 50, "totalSize": 0}


async def test_replies_are_told_on_demand(site: Site, listing: List) -> None:
    await ask(site, "fail auth", "s")
    said = await ask(site, "say hi", "s")
    spoken, failed = (await listing(site, includeArtifacts=True))["tasks"]
    assert spoken["artifacts"] == said["artifacts"]
    assert failed["artifacts"] == []
    assert failed["status"]["message"]["parts"] == [{"text": "the script says auth"}]
    assert "artifacts" not in (await listing(site, includeArtifacts=False))["tasks"][0]


@pytest.mark.parametrize("length", [0, 1, 5])
async def test_a_listed_task_is_as_it_is_got(start: StartSite, listing: List, length: int) -> None:
    def choose() -> str:
        """Ask."""
        raise InputRequiredError("which one?")

    site = await start(tools=[FunctionTool(choose)])
    await ask(site, "say hi", "s")
    await ask(site, "call choose\nsay {result}", "s")
    await ask(site, "fail auth", "t")
    page = await listing(site, includeArtifacts=True, historyLength=length)
    assert [task["status"]["state"] for task in page["tasks"]] == [
        "TASK_STATE_FAILED",
        "TASK_STATE_INPUT_REQUIRED",
        "TASK_STATE_COMPLETED",
    ]
    assert page["tasks"][1]["status"]["message"]["parts"] == [{"text": "which one?"}]
    without = await listing(site, historyLength=length)
    for task, bare in zip(page["tasks"], without["tasks"], strict=True):
        query = {"historyLength": str(length)}
        got = (await site.http.get(f"{PATH}/{task['id']}", params=query, headers=V1)).json()
        assert task == {"artifacts": []} | got
        assert bare == {name: value for name, value in got.items() if name != "artifacts"}


async def test_grpc_tells_the_same(site: Site, over_grpc: Any) -> None:
    for n in range(3):
        await ask(site, f"say {n}", f"s{n % 2}")
    await ask(site, "fail auth", "s1")
    for params in (
        {},
        {"pageSize": 2, "includeArtifacts": True, "historyLength": 2},
        {"contextId": "s1", "status": "TASK_STATE_FAILED"},
        {"statusTimestampAfter": "2026-01-01T00:00:00.5Z"},
        {"contextId": "none"},
    ):
        request = ParseDict({"tenant": "a", **params}, a2a_pb2.ListTasksRequest())
        told = await over_grpc(request)
        page = await over_json_rpc(site, **params)
        assert told == ParseDict(page, a2a_pb2.ListTasksResponse())
        assert page == await over_rest(site, **params)


async def test_grpc_goes_on_with_a_token(site: Site, over_grpc: Any) -> None:
    made = [(await ask(site, f"say {n}", "s"))["id"] for n in range(3)]
    first = await over_grpc(a2a_pb2.ListTasksRequest(tenant="a", page_size=2))
    rest = await over_grpc(
        a2a_pb2.ListTasksRequest(tenant="a", page_size=2, page_token=first.next_page_token)
    )
    assert [task.id for page in (first, rest) for task in page.tasks] == made[::-1]
    assert (rest.next_page_token, rest.page_size, rest.total_size) == ("", 2, 3)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"page_size": 0}, "pageSize: wanted a whole number from 1 to 100, found the number 0"),
        ({"page_size": -1}, "pageSize: wanted a whole number from 1 to 100, found the number -1"),
        ({"history_length": -1}, "historyLength: wanted a whole number from 0 to 2147483647"),
        ({"page_token": "x"}, "pageToken: is not one that a listing gave"),
        ({"status": 99}, "status: wanted"),
    ],
)
async def test_grpc_refuses_with_invalid_argument(
    site: Site, over_grpc: Any, params: Any, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await over_grpc(a2a_pb2.ListTasksRequest(tenant="a", **params))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(refused.value.details()).startswith(words)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/agents/a/tasks",
        "/agents/a/tasks",
        "/v1/agents/a/v1/tasks",
        "/agents/a/v1/tasks",
        "/a/tasks",
        "/v1/a/tasks",
        "/tasks?tenant=a",
        "/v1/tasks?tenant=a",
        "/tasks",
        "/v1/tasks",
    ],
)
async def test_tasks_are_listed_under_each_of_an_agents_urls(start: StartSite, path: str) -> None:
    site = await start(default_agent="a")
    task = await ask(site, "say hi")
    await site.http.post("/agents/b/message:send", **said("say hi"))
    assert ids((await site.http.get(path, headers=V1)).json()) == [task["id"]]


async def test_an_agent_that_is_not_there_has_no_list(site: Site) -> None:
    answer = await site.http.get("/v1/agents/nobody/tasks", headers=V1)
    assert (answer.status_code, answer.json()["error"]["field"]) == (404, "agent")


# --- pages


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_pages_lead_through_all_tasks(site: Site, listing: List, size: int) -> None:
    made = [(await ask(site, f"say {n}", f"s{n % 2}"))["id"] for n in range(5)]
    found: list[str] = []
    token = ""
    while True:
        page = await listing(site, pageSize=size, pageToken=token)
        assert (page["pageSize"], page["totalSize"]) == (size, 5)
        found += ids(page)
        token = page["nextPageToken"]
        assert re.fullmatch(r"[A-Za-z0-9_-]*", token)
        if not token:
            break
        assert len(page["tasks"]) == size
        await ask(site, "say nothing that the other pages show", "new")
        await site.http.delete("/v1/agents/a/sessions/new")
    assert found == made[::-1]


async def test_the_size_of_pages_may_change_and_what_they_show(site: Site, listing: List) -> None:
    made = [(await ask(site, f"say {n}", "s"))["id"] for n in range(4)]
    first = await listing(site, pageSize=1)
    rest = await listing(
        site, pageSize=3, pageToken=first["nextPageToken"], includeArtifacts=True, historyLength=1
    )
    assert ids(rest) == made[2::-1]
    assert rest["tasks"][0]["artifacts"]


FILTERS: dict[str, Any] = {
    "contextId": "s",
    "status": "TASK_STATE_COMPLETED",
    "statusTimestampAfter": "2026-01-01T00:00:00Z",
}


async def test_a_token_goes_with_the_tasks_that_it_was_given_for(site: Site, listing: List) -> None:
    for n in range(3):
        await ask(site, f"say {n}", "s")
    token = (await listing(site, pageSize=1, **FILTERS))["nextPageToken"]
    assert len((await listing(site, pageToken=token, **FILTERS))["tasks"]) == 2
    words, _ = await listing(site, pageToken=f"{token[:8]}!{token[8:]}", **FILTERS)
    assert "is not one that a listing gave" in words
    others = [
        {},
        *({name: value for name, value in FILTERS.items() if name != left} for left in FILTERS),
        FILTERS | {"contextId": "t"},
        FILTERS | {"status": "TASK_STATE_FAILED"},
        FILTERS | {"statusTimestampAfter": "2026-01-01T00:00:00.001Z"},
    ]
    for params in others:
        words, field = await listing(site, pageToken=token, **params)
        assert field == "pageToken"
        assert "is of a listing of other tasks; ask with the same contextId, status" in words


async def test_another_users_or_agents_token_is_refused(start: StartSite, listing: List) -> None:
    site = await start(auth=tokens())
    for token in (ALICE, BOB):
        for n in range(2):
            await ask(site, f"say {n}", "s", headers=bearer(token))
    token = (await listing(site, ALICE, pageSize=1))["nextPageToken"]
    words, field = await listing(site, BOB, pageToken=token)
    assert (field, "other tasks" in words) == ("pageToken", True)
    answer = await site.http.get(
        "/v1/agents/b/tasks", params={"pageToken": token}, headers=V1 | bearer(ALICE)
    )
    assert "other tasks" in answer.json()["error"]["message"]


def _token(*place: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "!!!!",
        "é",
        "AAAA",
        "e30",
        "bnVsbA",
        "A" * 10_000,
        _token("x", "2026-01-01T00:00:00+00:00"),
        _token("x", "2026-01-01T00:00:00+00:00", "id", "more"),
        _token("x", "2026-01-01T00:00:00+00:00", 1),
        _token("x", "2026-01-01T00:00:00+00:00", "\0"),
        _token("x", "2026-01-01T00:00:00+00:00", "\ud800"),
        _token("x", "0001-01-01T00:00:00+23:59", "id"),
        _token("x", "yesterday", "id"),
        _token("x", "2026-01-01T00:00:00+00:00", "x" * 1000),
    ],
)
async def test_what_no_listing_gave_is_no_token(site: Site, listing: List, token: str) -> None:
    words, field = await listing(site, pageToken=token)
    assert (field, words) == (
        "pageToken",
        "pageToken: is not one that a listing gave; leave it out to start again",
    )


@pytest.mark.parametrize("turn_id", ["", "a", "ab", "abc", "é🧭"])
def test_a_token_survives_a_url_as_it_is(turn_id: str) -> None:
    place = TurnPlace(datetime(2026, 1, 31, 10, 0, 0, 123456, UTC), turn_id)
    token = write_token(place, "listing")
    assert re.fullmatch("[A-Za-z0-9_-]+", token)
    assert read_token(token, "listing") == place


# --- which tasks


async def test_tasks_are_filtered(site: Site, listing: List) -> None:
    one = await ask(site, "say hi", "s")
    two = await ask(site, "fail auth", "s")
    three = await ask(site, "say hi", "t")
    for params, expected in (
        ({"contextId": "s"}, [two, one]),
        ({"contextId": ""}, [three, two, one]),
        ({"status": "TASK_STATE_COMPLETED"}, [three, one]),
        ({"status": "TASK_STATE_UNSPECIFIED"}, [three, two, one]),
        ({"contextId": "s", "status": "TASK_STATE_COMPLETED"}, [one]),
        ({"contextId": "t", "status": "TASK_STATE_FAILED"}, []),
        ({"statusTimestampAfter": "0900-12-10T00:00:00Z"}, [three, two, one]),
        ({"statusTimestampAfter": "9999-12-31T23:59:59Z"}, []),
    ):
        page = await listing(site, **params)
        assert ids(page) == [task["id"] for task in expected]
        assert page["totalSize"] == len(expected)


async def test_a_time_includes_the_tasks_that_show_it(site: Site, listing: List) -> None:
    shown = (await ask(site, "say hi", "s"))["status"]["timestamp"]
    at = datetime.fromisoformat(shown)
    berlin = (at + timedelta(hours=1)).replace(tzinfo=None).isoformat(timespec="milliseconds") + "+01:00"
    before = (at - timedelta(microseconds=1)).isoformat()
    for since in (shown, shown.lower(), shown.replace("Z", "000000Z"), berlin, before):
        assert len((await listing(site, statusTimestampAfter=since))["tasks"]) == 1, since
    for since in (shown.replace("Z", "000001Z"), (at + timedelta(microseconds=1)).isoformat()):
        assert (await listing(site, statusTimestampAfter=since))["tasks"] == [], since


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("pageSize", 0, "wanted a whole number from 1 to 100, found the number 0"),
        ("pageSize", 101, "wanted a whole number from 1 to 100, found the number 101"),
        ("pageSize", -1, "wanted a whole number from 1 to 100, found the number -1"),
        ("pageSize", 10**30, "wanted a whole number from 1 to 100"),
        ("pageSize", 1.5, "wanted a whole number from 1 to 100"),
        ("pageSize", "many", "wanted a whole number from 1 to 100, found a string"),
        ("pageSize", True, "wanted a whole number from 1 to 100"),
        ("historyLength", -1, "wanted a whole number from 0 to 2147483647, found the number -1"),
        ("historyLength", 2**31, "wanted a whole number from 0 to 2147483647, found the number 2147483648"),
        ("includeArtifacts", "yes", "wanted true or false, found a string"),
        ("includeArtifacts", 1, "wanted true or false"),
        ("status", "working", "wanted one of TASK_STATE_SUBMITTED, TASK_STATE_WORKING, TASK_STATE_INPUT_"),
        ("contextId", "a\0b", "contains a NUL character"),
        ("statusTimestampAfter", "yesterday", "wanted a time in ISO 8601 with its zone, like 2026-"),
        ("statusTimestampAfter", "2026-01-31", "wanted a time in ISO 8601 with its zone"),
        ("statusTimestampAfter", "2026-01-31T10:00:00", "wanted a time in ISO 8601 with its zone"),
        ("statusTimestampAfter", "2026-02-31T10:00:00Z", "wanted a time in ISO 8601 with its zone"),
        ("statusTimestampAfter", "9999-12-31T23:59:59.9999Z", "wanted a time in ISO 8601 with its zone"),
        ("statusTimestampAfter", "0001-01-01T00:00:00+01:00", "wanted a time in ISO 8601 with its zone"),
    ],
)
async def test_what_cannot_be_is_refused_with_what_is_wanted(
    site: Site, listing: List, name: str, value: Any, words: str
) -> None:
    message, field = await listing(site, **{name: value})
    assert field == name
    assert message.startswith(f"{name}: {words}")


@pytest.mark.parametrize("value", [["s"], {}, 5, "5"])
async def test_json_has_numbers_and_texts_where_they_belong(site: Site, value: Any) -> None:
    for name in ("pageSize",) if isinstance(value, str) else ("contextId", "status", "pageToken"):
        message, field = await over_json_rpc(site, **{name: value})
        assert (field, message.startswith(f"{name}: wanted")) == (name, True)


async def test_null_is_as_nothing_in_json(site: Site) -> None:
    await ask(site, "say hi")
    names = ("contextId", "status", "pageSize", "pageToken", "historyLength", "statusTimestampAfter")
    page = await over_json_rpc(site, **dict.fromkeys((*names, "includeArtifacts")))
    assert len(page["tasks"]) == 1


# --- whose


async def test_everybody_lists_their_own_tasks(start: StartSite, listing: List) -> None:
    site = await start(auth=tokens())
    made = {token: (await ask(site, "say hi", "s", headers=bearer(token)))["id"] for token in (ALICE, BOB)}
    for token, task_id in made.items():
        page = await listing(site, token, contextId="s")
        assert (ids(page), page["totalSize"]) == ([task_id], 1)


async def test_where_nobody_signs_in_tasks_are_listed_on_this_machine_alone(start: StartSite) -> None:
    site = await start(loopback=False)
    task = await ask(site, "say hi")
    assert (await site.http.get(f"{PATH}/{task['id']}", headers=V1)).status_code == 200
    for headers in (V1, {}):
        answer = await site.http.get(PATH, headers=headers)
        assert (answer.status_code, answer.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
    envelope = {"jsonrpc": "2.0", "id": 1, "method": "ListTasks"}
    assert (await site.http.post("/v1/agents/a", json=envelope)).status_code == 403


# --- A2A 0.3


@pytest.mark.parametrize("headers", [{}, {"A2A-Version": "0.3"}])
async def test_a2a_0_3_gets_an_array(site: Site, headers: dict[str, str]) -> None:
    await site.http.post("/v1/agents/b/message:send", **said("say hi"))
    made = [await ask(site, f"say {n}", "s") for n in range(2)]
    answer = await site.http.get(PATH, headers=headers)
    assert answer.json() == [task | {"kind": "task"} for task in made[::-1]]


async def test_a2a_0_3_gets_the_newest_hundred(site: Site) -> None:
    made = [(await ask(site, "say x", "s"))["id"] for _ in range(101)]
    found = (await site.http.get(PATH)).json()
    assert [task["id"] for task in found] == made[:0:-1]


@pytest.mark.parametrize("name", ["contextId", "status", "pageSize", "pageToken", "includeArtifacts"])
async def test_a2a_0_3_has_no_parameters(site: Site, name: str) -> None:
    error = (await site.http.get(PATH, params={name: "1"})).json()["error"]
    assert (error["code"], error["field"]) == ("invalid", name)
    assert "A2A-Version: 1.0" in error["message"]


async def test_a2a_0_3_has_no_list_over_json_rpc(site: Site) -> None:
    envelope = {"jsonrpc": "2.0", "id": 1, "method": "tasks/list"}
    assert (await site.http.post("/v1/agents/a", json=envelope)).json()["error"]["code"] == -32601
    envelope["method"] = "ListTasks"
    old = await site.http.post("/v1/agents/a", json=envelope, headers={"A2A-Version": "0.3"})
    assert old.json()["error"]["code"] == -32601
