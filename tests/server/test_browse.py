"""Agents and sessions."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from hector.domain.messages import File, Text, UserMessage
from hector.tools.function import FunctionTool
from tests.server.site import Site, StartSite

SESSIONS = "/v1/agents/a/sessions"


async def test_agents_are_listed_with_their_urls(site: Site) -> None:
    assert (await site.http.get("/v1/agents")).json()["agents"][0] == {
        "name": "a",
        "title": "Agent A",
        "description": "obeys",
        "url": "http://localhost:8091/v1/agents/a",
    }
    assert (await site.http.get("/agents")).json() == (await site.http.get("/v1/agents")).json()


async def test_urls_come_from_the_configured_base(start: StartSite) -> None:
    site = await start(base_url="https://hector.example.org/x")
    card = (await site.http.get("/v1/agents/a/.well-known/agent-card.json")).json()
    assert card["url"] == "https://hector.example.org/x/v1/agents/a"
    listed = (await site.http.get("/v1/agents")).json()["agents"]
    assert listed[1]["url"] == "https://hector.example.org/x/v1/agents/b"


@pytest.mark.parametrize(
    "session_id",
    [
        "a/b",
        "/",
        "..",
        ".",
        "a b",
        "100%",
        "%2F",
        "%252F",
        "a?b#c",
        "ü🎉",
        "s" * 191,
        ":cancel",
        "a+b",
        "\\",
        "\n",
        "v1",
    ],
)
async def test_a_session_is_found_whatever_its_id(site: Site, session_id: str) -> None:
    await site.ask("say x", session_id)
    path = f"{SESSIONS}/{quote(session_id, safe='')}".replace("/..", "/%2E%2E").replace("/.", "/%2E")
    shown = await site.http.get(path)
    assert (shown.status_code, shown.json().get("id")) == (200, session_id)
    assert (await site.http.delete(path)).status_code == 204
    assert (await site.http.get(path)).status_code == 404


async def test_a_session_is_shown_with_its_messages(start: StartSite) -> None:
    def clock() -> str:
        """The time."""
        return "noon"

    site = await start(tools=[FunctionTool(clock)])
    await site.ask("think aha\ncall clock\nsay it is noon", "s", message_id="m")
    shown = (await site.http.get(f"{SESSIONS}/s")).json()
    assert (shown["agent"], shown["user"], shown["id"], shown["messageCount"]) == ("a", "", "s", 4)
    assert shown["createdAt"].endswith("Z")
    assert [message["role"] for message in shown["messages"]] == ["user", "agent", "tool", "agent"]
    assert [message["seq"] for message in shown["messages"]] == [1, 2, 3, 4]
    assert shown["messages"][0]["messageId"] == "m"
    # What the model thought is left out.
    assert [list(part) for part in shown["messages"][1]["parts"]] == [["toolCall"]]
    assert shown["messages"][2]["parts"][0]["toolResult"]["text"] == "noon"
    assert shown["messages"][3]["parts"] == [{"text": "it is noon"}]


async def test_a_session_is_read_page_by_page_backwards(site: Site) -> None:
    for number in range(3):
        await site.ask(f"say {number}", "s")
    seen: list[int] = []
    query = "?limit=4"
    while query:
        page = (await site.http.get(f"{SESSIONS}/s{query}")).json()
        seen = [message["seq"] for message in page["messages"]] + seen
        query = page["before"] and f"?limit=4&before={page['before']}"
    assert seen == [1, 2, 3, 4, 5, 6]


async def test_why_a_message_was_not_answered_is_shown(site: Site) -> None:
    await site.ask("fail auth", "s")
    (message,) = (await site.http.get(f"{SESSIONS}/s")).json()["messages"]
    assert message["notAnswered"] == "model_auth"


async def test_sessions_are_listed_page_by_page_newest_first(site: Site) -> None:
    for session in ("one", "two", "three"):
        await site.ask("say x", session)
    found: list[str] = []
    cursor: Any = ""
    while cursor is not None:
        page = (await site.http.get(SESSIONS, params={"limit": 2, "cursor": cursor})).json()
        found += [session["id"] for session in page["sessions"]]
        cursor = page["nextCursor"]
    assert sorted(found) == ["one", "three", "two"]


async def test_sessions_of_another_agent_are_not_listed(site: Site) -> None:
    await site.ask("say x", "s")
    assert (await site.http.get("/v1/agents/b/sessions")).json() == {"sessions": [], "nextCursor": None}
    assert (await site.http.get("/v1/agents/b/sessions/s")).status_code == 404


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?limit=0", "limit"),
        ("?limit=201", "limit"),
        ("?limit=x", "limit"),
        ("?limit=-1", "limit"),
        ("?limit=²", "limit"),
        ("?limit=" + "9" * 5000, "limit"),
        ("?cursor=x", "cursor"),
        ("?user=a%00b", "user"),
        ("/s?user=" + "u" * 256, "user"),
        ("?cursor=e30=", "cursor"),
        ("/s?before=0", "before"),
        ("/s?before=99999999999999999999", "before"),
        ("/s?limit=1001", "limit"),
        ("/" + "s" * 192, "session"),
        ("/a%00b", "session"),
    ],
)
async def test_bad_queries_name_the_parameter(site: Site, query: str, field: str) -> None:
    answer = await site.http.get(SESSIONS + query)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)


async def test_files_are_listed_by_their_hash(site: Site) -> None:
    big = File("image/png", "x.png", b"x" * 70_000)
    handle = await site.runtime.send("a", "", UserMessage((Text("say x"), big)), session_id="s")
    await handle.result()
    shown = (await site.http.get(f"{SESSIONS}/s")).json()["messages"][0]["parts"][1]
    assert (shown["size"], shown["filename"], shown["mediaType"]) == (70_000, "x.png", "image/png")
    assert len(shown["sha256"]) == 64


async def test_deleting_a_session_ends_its_turn(site: Site) -> None:
    gate = site.model.gate("g")
    task = await site.ask("wait g", "s", configuration={"blocking": False})
    await gate.reached.wait()
    assert (await site.http.delete(f"{SESSIONS}/s")).status_code == 204
    assert (await site.http.get(f"/v1/agents/a/tasks/{task['id']}")).status_code == 404
    assert (await site.http.delete(f"{SESSIONS}/s")).status_code == 404


async def test_who_waits_for_a_turn_of_a_deleted_session_is_told(site: Site) -> None:
    gate = site.model.gate("g")
    waiting = asyncio.create_task(site.ask("wait g", "s", configuration={"historyLength": 5}))
    await gate.reached.wait()
    assert (await site.http.delete(f"{SESSIONS}/s")).status_code == 204
    task = await waiting
    assert task["status"]["state"] == "TASK_STATE_CANCELLED"
    assert task["metadata"]["reason"] == "session deleted"
