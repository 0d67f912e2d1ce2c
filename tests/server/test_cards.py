"""Agent cards: what they say, in whose words, and how they are kept; and the card for who signed in."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.compat.v0_3 import a2a_v0_3_pb2 as old_proto
from a2a.compat.v0_3.types import AgentCard as OldCard
from a2a.types import AgentCard, GetExtendedAgentCardRequest
from a2a.utils.proto_utils import validate_proto_required_fields
from google.protobuf.json_format import MessageToDict, ParseDict

from hector.config import loads
from hector.domain.profiles import Extension, Profile, Provider, Skill
from hector.runtime.build import _profile
from hector.server.a2a.card import Cards
from hector.server.a2a.dialect import Dialect
from tests.server.site import ALICE, Site, StartSite, bearer, tokens

CARD = "/v1/agents/a/.well-known/agent-card.json"
RPC = "/v1/agents/a"
WEATHER = Skill("weather", "Weather", "tells it", ("sky",), ("Rain?",), ("text/plain",), ("image/png",))
SECRET = Skill("secret", "Secret", "for friends")
FULL = Profile(
    "2.1",
    Provider("Acme", "https://acme.example/"),
    "https://docs.example/#a",
    "https://acme.example/i.png",
    (WEATHER,),
    (
        Extension("urn:x:1", "exes", required=True, params={"deep": {"list": [1, 2.5, None, True]}}),
        Extension("urn:y:1"),
    ),
    "tells friends more",
    (SECRET,),
)
ONLY_OLD = {
    "protocolVersion",
    "url",
    "preferredTransport",
    "additionalInterfaces",
    "security",
    "supportsAuthenticatedExtendedCard",
}


@pytest.fixture(params=["bare", "full"])
async def signed_in(request: pytest.FixtureRequest, start: StartSite) -> Site:
    """With tokens, of which the client has one; the agent says much of itself, or nothing."""
    site = await start(auth=tokens(), profile=FULL if request.param == "full" else None)
    site.http.headers.update(bearer(ALICE))
    return site


async def rpc(site: Site, method: str, url: str = RPC) -> Any:
    answer = await site.http.post(url, json={"jsonrpc": "2.0", "id": 1, "method": method})
    assert answer.status_code == 200
    return answer.json()


def as_1_0(card: Any) -> AgentCard:
    """Nothing in it is unknown to protobuf, nothing that is required is missing, nothing is lost."""
    read = ParseDict(card, AgentCard())
    validate_proto_required_fields(read)
    assert MessageToDict(read) == card
    return read


def as_0_3(card: Any) -> OldCard:
    read = OldCard.model_validate(card)
    written = read.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert written.keys() == card.keys()
    return read


async def test_a_card_is_true(site: Site) -> None:
    card = (await site.http.get(CARD)).json()
    assert (card["name"], card["description"]) == ("Agent A", "obeys")
    assert card["capabilities"] == {
        "streaming": True,
        "pushNotifications": False,
        "extendedAgentCard": False,
    }
    assert card["skills"] == [{"id": "chat", "name": "Agent A", "description": "obeys", "tags": ["chat"]}]
    assert [(each["protocolBinding"], each["protocolVersion"]) for each in card["supportedInterfaces"]] == [
        ("HTTP+JSON", "1.0"),
        ("JSONRPC", "1.0"),
        ("HTTP+JSON", "0.3"),
        ("JSONRPC", "0.3"),
    ]
    assert {each["url"] for each in card["supportedInterfaces"]} == {"http://localhost:8091/v1/agents/a"}
    assert not card.keys() & {"securitySchemes", "security", "securityRequirements", "signatures"}
    assert (await site.http.get("/v1/agents/none/.well-known/agent-card.json")).status_code == 404


async def test_a_card_says_what_the_agent_says_of_itself(start: StartSite) -> None:
    site = await start(profile=FULL)
    card = (await site.http.get(CARD)).json()
    assert (card["version"], card["documentationUrl"]) == ("2.1", "https://docs.example/#a")
    assert card["iconUrl"] == "https://acme.example/i.png"
    assert card["provider"] == {"organization": "Acme", "url": "https://acme.example/"}
    assert card["skills"] == [
        {
            "id": "weather",
            "name": "Weather",
            "description": "tells it",
            "tags": ["sky"],
            "examples": ["Rain?"],
            "inputModes": ["text/plain"],
            "outputModes": ["image/png"],
        }
    ]
    assert card["capabilities"]["extensions"] == [
        {
            "uri": "urn:x:1",
            "description": "exes",
            "required": True,
            "params": {"deep": {"list": [1, 2.5, None, True]}},
        },
        {"uri": "urn:y:1"},
    ]
    assert card["description"] == "obeys"


async def test_one_card_is_right_for_both_versions(signed_in: Site) -> None:
    card = (await signed_in.http.get(CARD, headers={"authorization": ""})).json()
    old = OldCard.model_validate(card)
    assert (old.protocol_version, old.url) == ("0.3.0", "http://localhost:8091/v1/agents/a")
    assert (old.preferred_transport, old.supports_authenticated_extended_card) == ("HTTP+JSON", True)
    assert {(each.transport, each.url) for each in old.additional_interfaces or []} == {
        ("HTTP+JSON", old.url),
        ("JSONRPC", old.url),
    }
    assert old.security == [{"bearer": []}]
    schemes = {name: scheme.root for name, scheme in (old.security_schemes or {}).items()}
    assert schemes["bearer"].type == "http"
    new = {name: value for name, value in card.items() if name not in ONLY_OLD}
    scheme = new["securitySchemes"]["bearer"]
    assert (scheme.pop("type"), scheme.pop("scheme")) == ("http", "Bearer")
    read = as_1_0(new)
    assert read.capabilities.extended_agent_card
    assert read.security_schemes["bearer"].http_auth_security_scheme.scheme == "Bearer"
    assert list(read.security_requirements[0].schemes) == ["bearer"]


async def test_the_extended_card_is_in_the_words_of_the_version_that_asks(signed_in: Site) -> None:
    new = (await signed_in.http.get(f"{RPC}/extendedAgentCard")).json()
    as_1_0(new)
    assert (await rpc(signed_in, "GetExtendedAgentCard"))["result"] == new
    old = (await signed_in.http.get(f"{RPC}/v1/card")).json()
    as_0_3(old)
    assert (await rpc(signed_in, "agent/getAuthenticatedExtendedCard"))["result"] == old


async def test_there_is_a_card_for_0_3s_protobuf(signed_in: Site) -> None:
    cards = Cards(signed_in.runtime, None, signs_in=True, pushes=lambda _: False)
    card = cards.extended("a", "http://h:1", Dialect.V03_PROTO)
    read = ParseDict(card, old_proto.AgentCard())
    assert read.security_schemes["bearer"].http_auth_security_scheme.scheme == "Bearer"
    assert list(read.security[0].schemes) == ["bearer"]


async def test_who_signs_in_is_told_more(start: StartSite) -> None:
    site = await start(auth=tokens(), profile=FULL, default_agent="a")
    public = (await site.http.get(CARD)).json()
    assert public["description"] == "obeys"
    assert [skill["id"] for skill in public["skills"]] == ["weather"]
    for path in (
        f"{RPC}/extendedAgentCard",
        f"{RPC}/v1/card",
        "/extendedAgentCard",
        "/a/extendedAgentCard",
        "/v1/card",
    ):
        refused = await site.http.get(path)
        assert refused.status_code == 401, path
        assert "friends" not in refused.text
        told = await site.http.get(path, headers=bearer(ALICE))
        assert told.json()["description"] == "tells friends more"
        assert [skill["id"] for skill in told.json()["skills"]] == ["weather", "secret"]
        assert told.headers["cache-control"] == "private, max-age=60"
        assert told.headers["vary"] == "authorization"
        assert (await site.http.get(f"{path}?name=b", headers=bearer(ALICE))).json() == told.json()


async def test_where_nobody_signs_in_there_is_no_extended_card(start: StartSite) -> None:
    site = await start(default_agent="a")
    reasons = {
        "/extendedAgentCard": "UNSUPPORTED_OPERATION",
        "/v1/card": "EXTENDED_AGENT_CARD_NOT_CONFIGURED",
    }
    for path, reason in reasons.items():
        for base in (RPC, ""):
            answer = await site.http.get(base + path, headers={"a2a-version": "1.0"})
            error = answer.json()["error"]
            assert (answer.status_code, error["status"]) == (400, "FAILED_PRECONDITION")
            assert error["details"][0]["reason"] == reason
    for url in (RPC, "/"):
        assert (await rpc(site, "GetExtendedAgentCard", url))["error"]["code"] == -32004
        # 0.3 does not tell what is not declared from what is not there.
        before = (await rpc(site, "agent/getAuthenticatedExtendedCard", url))["error"]
        assert (before["code"], before["data"][0]["reason"]) == (-32007, "EXTENDED_AGENT_CARD_NOT_CONFIGURED")
    assert (await site.http.get("/v1/agents/none/extendedAgentCard")).status_code == 404


@pytest.mark.parametrize("spoken", ["1.0", "0.3"])
@pytest.mark.parametrize("binding", ["HTTP+JSON", "JSONRPC"])
async def test_clients_read_the_extended_card(signed_in: Site, spoken: str, binding: str) -> None:
    card = await A2ACardResolver(signed_in.http, "http://localhost:8091/v1/agents/a").get_agent_card()
    kept = [each for each in card.supported_interfaces if each.protocol_version == spoken]
    del card.supported_interfaces[:]
    card.supported_interfaces.extend(kept)
    config = ClientConfig(httpx_client=signed_in.http, supported_protocol_bindings=[binding])
    client = ClientFactory(config).create(card)
    extended = await client.get_extended_agent_card(GetExtendedAgentCardRequest())
    shown = (await signed_in.http.get(f"{RPC}/extendedAgentCard")).json()
    assert [skill.id for skill in extended.skills] == [skill["id"] for skill in shown["skills"]]
    assert extended.security_schemes["bearer"].http_auth_security_scheme.scheme == "Bearer"


async def test_grpc_stands_beside_the_others_as_each_version_writes_it(site: Site) -> None:
    cards = Cards(
        site.runtime,
        None,
        signs_in=False,
        pushes=lambda _: False,
        default_agent="a",
        grpc=lambda reached: f"{reached[7:]}:8090",
    )
    card: Any = cards.public("a", "http://h")
    rows = {
        (each["protocolBinding"], each["protocolVersion"]): each["url"]
        for each in card["supportedInterfaces"]
    }
    assert rows["GRPC", "1.0"] == rows["GRPC", "0.3"] == "h:8090"
    assert card["additionalInterfaces"][-1] == {"transport": "GRPC", "url": "h:8090"}


async def test_grpc_tells_agents_apart_by_tenant_which_0_3_cannot(site: Site) -> None:
    cards = Cards(
        site.runtime, None, signs_in=False, pushes=lambda _: False, default_agent="b", grpc=lambda _: "h:1"
    )
    card: Any = cards.public("a", "https://h")
    grpc = [each for each in card["supportedInterfaces"] if each["protocolBinding"] == "GRPC"]
    assert grpc == [{"url": "h:1", "protocolBinding": "GRPC", "protocolVersion": "1.0", "tenant": "a"}]
    assert "GRPC" not in {each["transport"] for each in card["additionalInterfaces"]}
    other: Any = cards.public("b", "https://h")
    assert {each.get("tenant") for each in other["supportedInterfaces"]} == {None}
    assert other["additionalInterfaces"][-1] == {"transport": "GRPC", "url": "h:1"}


async def test_grpc_is_where_http_was_reached_or_where_the_operator_says(start: StartSite) -> None:
    async def grpc_urls(site: Site, host: str) -> set[str]:
        site.app.grpc_port = 8090
        card = (await site.http.get(CARD, headers={"host": host})).json()
        return {each["url"] for each in card["supportedInterfaces"] if each["protocolBinding"] == "GRPC"}

    site = await start(default_agent="a", loopback=False)
    for host, address in {
        "10.0.0.1:8091": "10.0.0.1:8090",
        "h": "h:8090",
        "[::1]:1": "[::1]:8090",
        "0.0.0.0:1": "127.0.0.1:8090",
    }.items():
        assert await grpc_urls(site, host) == {address}
    assert (await site.http.get(CARD, headers={"host": "[x/"})).status_code == 200
    behind = await start(base_url="https://x.example/y", loopback=False)
    assert await grpc_urls(behind, "h") == set()
    told = await start(base_url="https://x.example/y", grpc_address="grpc.x.example:443", loopback=False)
    assert await grpc_urls(told, "h") == {"grpc.x.example:443"}
    url = await start(default_agent="a", grpc_address="https://x.example:1", loopback=False)
    assert await grpc_urls(url, "h") == {"x.example:1"}
    card = (await url.http.get(CARD, headers={"host": "h"})).json()
    assert card["additionalInterfaces"][-1] == {"transport": "GRPC", "url": "https://x.example:1"}


async def test_urls_are_by_the_configured_base_with_its_path(start: StartSite) -> None:
    site = await start(base_url="https://hector.example.org/x")
    answer = await site.http.get(CARD)
    card = answer.json()
    urls = {each["url"] for each in card["supportedInterfaces"] + card["additionalInterfaces"]}
    assert urls | {card["url"]} == {"https://hector.example.org/x/v1/agents/a"}
    assert answer.headers["cache-control"] == "public, max-age=60"


async def test_urls_by_the_word_of_one_caller_are_for_that_caller(site: Site) -> None:
    here = await site.http.get(CARD, headers={"host": "127.0.0.1:1"})
    assert here.json()["url"] == "http://127.0.0.1:1/v1/agents/a"
    assert here.headers["cache-control"] == "private, max-age=60"
    assert (await site.http.get(CARD)).headers["etag"] != here.headers["etag"]


async def test_a_card_is_made_once(site: Site) -> None:
    cards = Cards(site.runtime, None, signs_in=True, pushes=lambda _: False)
    assert cards.public("a", "http://h") is cards.public("a", "http://h")
    assert cards.extended("a", "http://h", Dialect.V1) is cards.extended("a", "http://h", Dialect.V1)
    assert cards.public("a", "http://h") is not cards.public("a", "http://i")
    for number in range(1000):
        cards.public("a", f"http://{number}")
    assert cards._made.cache_info().currsize < 1000


async def get(site: Site, **headers: str) -> httpx.Response:
    return await site.http.get(
        CARD, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


async def test_who_has_the_card_is_not_sent_it_again(site: Site) -> None:
    first = await get(site)
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    assert etag.startswith('"')
    for known in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        again = await get(site, if_none_match=known)
        assert (again.status_code, again.content) == (304, b"")
        assert (again.headers["etag"], again.headers["last-modified"]) == (etag, modified)
        assert again.headers["cache-control"] == first.headers["cache-control"]
    assert (await get(site, if_none_match='"x"')).status_code == 200
    assert (await get(site, if_modified_since=modified)).status_code == 304
    later = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)
    assert (await get(site, if_modified_since=later)).status_code == 304
    assert (await get(site, if_modified_since="Mon, 01 Jan 2024 00:00:00 GMT")).status_code == 200
    assert (await get(site, if_modified_since="when it was new")).status_code == 200
    far = "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"
    assert (await get(site, if_modified_since=far)).status_code == 200
    # What is known by name is not known by date.
    assert (await get(site, if_none_match='"x"', if_modified_since=later)).status_code == 200


@pytest.mark.parametrize("path", [CARD, "/openapi.json"])
async def test_who_speaks_a_version_that_is_not_spoken_here_learns_which_are(site: Site, path: str) -> None:
    known = await site.http.get(path)
    for headers in ({"a2a-version": "1.1"}, {"a2a-version": "no version"}):
        asked = await site.http.get(path, headers=headers)
        assert (asked.status_code, asked.json()) == (200, known.json())
    missing = await site.http.get(CARD.replace("/a/", "/none/"), headers={"a2a-version": "1.1"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, 404)


def test_the_configuration_tells_all_that_a_card_says() -> None:
    section = loads(CONFIGURED).agents["a"]
    assert _profile(section) == FULL


CONFIGURED = """
agents:
  a:
    llm: gpt-4o
    version: "2.1"
    provider: {organization: Acme, url: https://acme.example/}
    documentation_url: https://docs.example/#a
    icon_url: https://acme.example/i.png
    skills:
      - id: weather
        name: Weather
        description: tells it
        tags: [sky]
        examples: [Rain?]
        input_modes: [text/plain]
        output_modes: [image/png]
    extended:
      description: tells friends more
      skills: [{id: secret, name: Secret, description: for friends}]
    extensions:
      - {uri: "urn:x:1", description: exes, required: true, params: {deep: {list: [1, 2.5, null, true]}}}
      - {uri: "urn:y:1"}
"""
