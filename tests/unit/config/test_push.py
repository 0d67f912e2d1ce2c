"""`server.push`: what may stand there."""

import json

import pytest

from hector.config import loads
from hector.domain.errors import ConfigError

AGENT = "agents: {a: {llm: gpt-4o}}\n"
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def push(text: str) -> str:
    return f"{AGENT}server: {{push: {text}}}\n"


def test_by_default_it_depends_on_the_store() -> None:
    section = loads(AGENT).server.push
    assert (section.enabled, section.allow, section.signing_keys) == (None, (), ())


@pytest.mark.parametrize(
    "target", ["localhost", "hooks.example.com", "*.svc.local", "10.1.0.0/16", "127.0.0.1", "::1", "fd00::/8"]
)
def test_hosts_and_networks_may_be_allowed(target: str) -> None:
    assert loads(push(f"{{allow: ['{target}']}}")).server.push.allow == (target,)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "*",
        "*.",
        "http://localhost",
        "localhost:8080",
        "10.1.0.0/8",
        "10.1.0.300",
        "[::1]",
        "a b",
        "a.*.b",
    ],
)
def test_what_is_neither_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=r"wanted a host name, \*\.name, an IP address, or a network"):
        loads(push(f"{{allow: ['{target}']}}"))


def test_a_key_is_taken_and_not_shown() -> None:
    config = loads(push(f"{{signing_keys: [{KEY}]}}"))
    assert config.server.push.signing_keys[0].get_secret_value() == KEY
    assert KEY not in json.dumps(config.shown())


@pytest.mark.parametrize(
    "key", ["whsec_", KEY.removeprefix("whsec_"), "whsec_c2hvcnQ=", "whsec_%%%", "secret"]
)
def test_what_is_no_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigError, match="wanted whsec_ and 24 to 64 random bytes") as refused:
        loads(push(f"{{signing_keys: ['{key}']}}"))
    shown = str(refused.value).replace("wanted whsec_ and", "")
    assert key not in shown.replace("signing_keys", "")
