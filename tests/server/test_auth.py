"""Who may do what: tokens, loopback, hosts and origins."""

from typing import Any

import pytest

from hector.server.http.origins import host_name
from tests.server.site import ADMIN, ALICE, BOB, Site, StartSite, bearer, said, tokens

SESSIONS = "/v1/agents/a/sessions"


@pytest.fixture
async def closed(start: StartSite) -> Site:
    """Tokens are needed; other machines can reach it."""
    return await start(auth=tokens(), loopback=False)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong-token"},
        {"authorization": f"Basic {ALICE}"},
        {"authorization": "Bearer "},
        {"authorization": ALICE},
        {"authorization": f"Bearer {ALICE}x"},
        {"authorization": f"Bearer {ALICE[:-1]}"},
        {"authorization": "Bearer \xff"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/agents/a/message:send"),
        ("POST", "/v1/agents/a/message:stream"),
        ("GET", "/v1/agents"),
        ("GET", SESSIONS),
        ("GET", f"{SESSIONS}/s"),
        ("DELETE", f"{SESSIONS}/s"),
        ("GET", "/v1/agents/a/tasks/t"),
        ("GET", "/nothing"),
    ],
)
async def test_without_a_good_token_nothing_is_served(
    closed: Site, headers: Any, method: str, path: str
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = await closed.http.request(method, path, headers=raw)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["error"]["status"] == "UNAUTHENTICATED"
    assert "token-of" not in answer.text


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/agents/a/.well-known/agent-card.json"])
async def test_probes_and_cards_need_no_token(closed: Site, path: str) -> None:
    assert (await closed.http.get(path)).status_code == 200


async def test_the_scheme_may_be_written_in_any_case(closed: Site) -> None:
    assert (
        await closed.http.get("/v1/agents", headers={"authorization": f"bearer {ALICE}"})
    ).status_code == 200


async def test_users_have_their_own_sessions_under_the_same_ids(closed: Site) -> None:
    mine = await closed.ask("say of alice", "s", headers=bearer(ALICE))
    await closed.ask("say of bob", "s", headers=bearer(BOB))
    assert len(closed.model.requests[-1].messages) == 1
    shown = (await closed.http.get(f"{SESSIONS}/s", headers=bearer(ALICE))).json()
    assert [message["parts"][0]["text"] for message in shown["messages"]] == ["say of alice", "of alice"]
    for method, path in (("GET", f"/tasks/{mine['id']}"), ("POST", f"/tasks/{mine['id']}:cancel")):
        answer = await closed.http.request(method, f"/v1/agents/a{path}", headers=bearer(BOB))
        assert answer.status_code == 404


async def test_another_users_task_cannot_be_resumed(closed: Site) -> None:
    mine = await closed.ask("say x", "s", headers=bearer(ALICE))
    answer = await closed.send("say y", task_id=mine["id"], headers=bearer(BOB))
    assert answer.status_code == 404


async def test_a_listing_holds_ones_own_and_an_admins_all(closed: Site) -> None:
    for token, session in ((ALICE, "of-alice"), (BOB, "of-bob")):
        await closed.ask("say x", session, headers=bearer(token))

    async def listed(token: str, query: str = "") -> set[str]:
        answer = await closed.http.get(SESSIONS + query, headers=bearer(token))
        return {session["id"] for session in answer.json()["sessions"]}

    assert await listed(ALICE) == {"of-alice"}
    assert await listed(ADMIN) == {"of-alice", "of-bob"}
    assert await listed(ADMIN, "?user=bob") == {"of-bob"}
    assert await listed(ADMIN, "?user=root") == set()


async def test_an_admin_names_the_user_whose_session_is_meant(closed: Site) -> None:
    await closed.ask("say x", "s", headers=bearer(ALICE))
    assert (await closed.http.get(f"{SESSIONS}/s", headers=bearer(ADMIN))).status_code == 404
    shown = await closed.http.get(f"{SESSIONS}/s?user=alice", headers=bearer(ADMIN))
    assert shown.json()["user"] == "alice"
    assert (await closed.http.delete(f"{SESSIONS}/s?user=alice", headers=bearer(ADMIN))).status_code == 204


@pytest.mark.parametrize("path", [f"{SESSIONS}?user=alice", f"{SESSIONS}/s?user=alice", f"{SESSIONS}?user="])
async def test_others_may_not_name_another_user(closed: Site, path: str) -> None:
    answer = await closed.http.get(path, headers=bearer(BOB))
    assert (answer.status_code, answer.json()["error"]["field"]) == (403, "user")


async def test_a_card_says_how_to_sign_in(closed: Site) -> None:
    card = (await closed.http.get("/v1/agents/a/.well-known/agent-card.json")).json()
    assert card["securitySchemes"]["bearer"]["httpAuthSecurityScheme"] == {"scheme": "Bearer"}
    assert card["security"] == [{"bearer": []}]


async def test_where_others_can_reach_it_sessions_are_shown_to_nobody_who_does_not_sign_in(
    start: StartSite,
) -> None:
    site = await start(loopback=False)
    task = await site.ask("say x", "s")
    for method, path in (("GET", ""), ("GET", "/s"), ("DELETE", "/s"), ("GET", "?user=")):
        answer = await site.http.request(method, SESSIONS + path)
        assert answer.status_code == 403, path
        assert "server.auth.tokens" in answer.json()["error"]["message"]
    assert (await site.http.get(f"/v1/agents/a/tasks/{task['id']}")).status_code == 200


async def test_on_loopback_everybody_is_the_operator(site: Site) -> None:
    await site.ask("say x", "s")
    assert len((await site.http.get(SESSIONS)).json()["sessions"]) == 1
    assert (await site.http.get(f"{SESSIONS}?user=alice")).json()["sessions"] == []


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8091", 200),
        ("LOCALHOST", 200),
        ("localhost.:1", 200),
        ("127.0.0.1:8091", 200),
        ("[::1]:8091", 200),
        ("hector.example.org", 200),
        ("evil.example.org", 403),
        ("localhost.evil.example.org", 403),
        ("127.0.0.1.evil.example.org:8091", 403),
        ("[::2]:8091", 403),
        ("", 403),
    ],
)
async def test_on_loopback_the_host_must_be_known(start: StartSite, host: str, status: int) -> None:
    site = await start(base_url="https://hector.example.org")
    assert (await site.http.get("/v1/agents", headers={"host": host})).status_code == status


async def test_elsewhere_any_host_will_do(start: StartSite) -> None:
    site = await start(loopback=False)
    assert (await site.http.get("/v1/agents", headers={"host": "any.example.org"})).status_code == 200


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8091", 200),
        ("https://hector.example.org", 200),
        ("http://localhost:3000", 403),
        ("http://evil.example.org", 403),
        ("http://hector.example.org", 403),
        ("null", 403),
        ("", 403),
        ("file://localhost:8091", 403),
    ],
)
async def test_foreign_web_pages_are_kept_out(
    start: StartSite, loopback: bool, origin: str, status: int
) -> None:
    site = await start(base_url="https://hector.example.org", loopback=loopback)
    request = said("say x", headers={"origin": origin})
    assert (await site.http.post("/v1/agents/a/message:send", **request)).status_code == status


def test_host_names_are_read_without_their_port() -> None:
    assert [host_name(host) for host in (b"A.b:80", b"[::1]:80", b"[::1]", b"x.", b"")] == [
        "a.b",
        "::1",
        "::1",
        "x",
        "",
    ]
