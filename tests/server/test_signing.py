"""Signed cards, checked by a2a-sdk's own verifier and by the letter of RFC 7515."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
import rfc8785
from a2a.client import A2ACardResolver
from a2a.types import AgentCard
from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from google.protobuf.json_format import ParseDict

from hector.cli.config_file import load_config
from hector.config import ServerSection
from hector.domain.errors import ConfigError
from hector.domain.profiles import Extension, Profile, Skill
from hector.server.a2a.signing import open_signer
from tests.server.site import ALICE, Site, StartSite, bearer, tokens

CARD = "/v1/agents/a/.well-known/agent-card.json"
KEYS: dict[str, Any] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "RS256": rsa.generate_private_key(65537, 2048),
}
PROFILE = Profile(
    skills=(Skill("s", "Ä 🎉", "tells\n\u2028\u0001"),),
    extensions=(Extension("urn:x", params={"empty": {}, "n": 1e21, "é": [0.1, {"": ""}], "z": None}),),
)


def pem(key: Any, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    found: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return found


@pytest.fixture(params=KEYS)
def algorithm(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["bare", "with tokens"])
async def signed(request: pytest.FixtureRequest, algorithm: str, start: StartSite, tmp_path: Path) -> Site:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(KEYS[algorithm]))
    return await start(
        card_key=path,
        card_key_id="k1",
        card_key_url="https://keys.example/jwks.json",
        profile=PROFILE,
        auth=tokens() if request.param == "with tokens" else None,
    )


def headers_of(card: Any) -> list[Any]:
    return [json.loads(decoded(signature["protected"])) for signature in card["signatures"]]


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def fits(card: Any, payload: Any, algorithm: str) -> bool:
    """Whether one of the signatures is over this payload."""
    body = base64.urlsafe_b64encode(rfc8785.dumps(payload)).rstrip(b"=").decode()
    for signature in card["signatures"]:
        token = f"{signature['protected']}.{body}.{signature['signature']}"
        try:
            jwt.PyJWS().decode(token, KEYS[algorithm].public_key(), [algorithm])
        except jwt.InvalidSignatureError:
            continue
        return True
    return False


async def test_the_sdk_verifies_a_card(signed: Site, algorithm: str) -> None:
    def key_of(kid: str | None, jku: str | None) -> Any:
        assert (kid, jku) == ("k1", "https://keys.example/jwks.json")
        return KEYS[algorithm].public_key()

    verify = create_signature_verifier(key_of, [algorithm])
    resolver = A2ACardResolver(signed.http, "http://localhost:8091/v1/agents/a")
    card = await resolver.get_agent_card(signature_verifier=verify)
    card.description += "!"
    with pytest.raises(InvalidSignaturesError):
        verify(card)
    if signed.app._entrance.tokens.required:
        url = "/v1/agents/a/extendedAgentCard"
        extended = (await signed.http.get(url, headers=bearer(ALICE))).json()
        verify(ParseDict(extended, AgentCard()))


async def test_the_document_itself_is_signed(signed: Site, algorithm: str) -> None:
    card = (await signed.http.get(CARD)).json()
    bare = {name: value for name, value in card.items() if name != "signatures"}
    assert fits(card, bare, algorithm)
    new = bare | {"securitySchemes": {"bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer"}}}}
    if "securitySchemes" not in bare:
        del new["securitySchemes"]
    for name in (
        "protocolVersion",
        "url",
        "preferredTransport",
        "additionalInterfaces",
        "security",
        "supportsAuthenticatedExtendedCard",
    ):
        new.pop(name, None)
    assert fits(card, new, algorithm)
    assert not fits(card, bare | {"name": "another"}, algorithm)
    expected = {"alg": algorithm, "typ": "JOSE", "kid": "k1", "jku": "https://keys.example/jwks.json"}
    assert all(header == expected for header in headers_of(card))


async def test_a_key_without_a_name_is_called_by_its_thumbprint(tmp_path: Path, algorithm: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(KEYS[algorithm]))
    signer = open_signer(ServerSection(card_key=path))
    assert signer
    public = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(KEYS[algorithm].public_key()))
    named = {name: public[name] for name in ("crv", "e", "kty", "n", "x", "y") if name in public}
    digest = hashlib.sha256(json.dumps(named, separators=(",", ":"), sort_keys=True).encode()).digest()
    assert decoded(signer.kid) == digest
    (header,) = headers_of({"signatures": signer.sign([{"name": "a"}])})
    assert "jku" not in header


@pytest.mark.parametrize(
    "content",
    [
        b"no key",
        b"",
        pem(ed25519.Ed25519PrivateKey.generate(), b"password"),
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(rsa.generate_private_key(65537, 1024)),
    ],
    ids=["text", "empty", "encrypted", "P-384", "RSA-1024"],
)
def test_a_key_that_cannot_sign_is_found_before_the_start(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    file = tmp_path / "c.yaml"
    file.write_text(
        f"agents: {{a: {{llm: x}}}}\nllms: {{x: {{type: scripted}}}}\nserver: {{card_key: '{path}'}}\n"
    )
    with pytest.raises(ConfigError, match=r"c.yaml:3: server.card_key: wanted a private key in PEM") as told:
        load_config(file)
    with pytest.raises(ConfigError):
        open_signer(ServerSection(card_key=path))
    assert "no key" not in str(told.value)


async def test_what_cannot_be_signed_is_not_served_unsigned(start: StartSite, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(b"no key")
    with pytest.raises(ConfigError):
        await start(card_key=path)


async def test_a_card_is_the_same_whoever_signs_it(algorithm: str, start: StartSite, tmp_path: Path) -> None:
    """Each process signs for itself, and clients ask any of them whether the card has changed."""
    path = tmp_path / "key.pem"
    path.write_bytes(pem(KEYS[algorithm]))
    one, other = [await start(card_key=path) for _ in range(2)]
    first = await one.http.get(CARD)
    again = await other.http.get(CARD, headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
    assert (await other.http.get(CARD)).content == first.content
