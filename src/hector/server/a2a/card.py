"""Agent cards: what a client learns of an agent before it talks to it, in the words of both versions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import TypeAlias

from hector.domain.agents import Agent
from hector.domain.messages import JsonValue
from hector.domain.profiles import Extension, Skill
from hector.runtime.runtime import Runtime
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.wire import Json, filled
from hector.server.statuses import NoExtendedCardBeforeError, NoExtendedCardError

_KEPT = 256
"""Cards: where no `server.base_url` is set, each name for this server makes its own."""
_INPUT_MODES: list[JsonValue] = ["text/plain", "application/json"]
_OUTPUT_MODES: list[JsonValue] = ["text/plain"]
_BEARER = "bearer"

GrpcAddress: TypeAlias = Callable[[str], str | None]
"""The `host:port` of the gRPC listener, for who reached this server under a URL; None if nobody knows."""
Signer: TypeAlias = Callable[[Sequence[Json]], list[JsonValue]]
"""Signatures over each of the forms in which clients may read one card."""


class Cards:
    """An agent changes only with a restart, so each card is made once."""

    def __init__(
        self,
        runtime: Runtime,
        base_url: str | None,
        *,
        signs_in: bool,
        pushes: Callable[[str], bool],
        default_agent: str | None = None,
        grpc: GrpcAddress = lambda _: None,
        sign: Signer | None = None,
    ) -> None:
        """`signs_in`: callers need a token, so there is somebody to tell more than the public card.

        `pushes`: whether webhooks are told of the tasks of an agent.
        """
        self._runtime = runtime
        self._base_url = base_url
        self._signs_in = signs_in
        self._pushes = pushes
        self._default_agent = default_agent
        self._grpc = grpc
        self._sign = sign
        self._made = lru_cache(_KEPT)(self._make)

    @property
    def shared(self) -> bool:
        """A card is the same for all; otherwise its URLs are by the word of the caller."""
        return self._base_url is not None

    def url(self, agent: str, reached: str) -> str:
        """By `server.base_url`, else by `reached`, the URL under which the caller reached this server."""
        return f"{self._base_url or reached}/v1/agents/{agent}"

    def public(self, agent: str, reached: str) -> Json:
        """In the words of both versions at once. Raises `NotFoundError`."""
        return self._made_for(agent, reached, None)

    def extended(self, agent: str, reached: str, dialect: Dialect) -> Json:
        """With what only callers who signed in are told. Raises `NotFoundError`, `NoExtendedCardError`."""
        self._runtime.agent(agent)
        if not self._signs_in:
            raise NoExtendedCardError if dialect is Dialect.V1 else NoExtendedCardBeforeError
        return self._made_for(agent, reached, dialect)

    def _made_for(self, agent: str, reached: str, dialect: Dialect | None) -> Json:
        """Without a dialect the public card."""
        base = self._base_url or reached
        return self._made(agent, base, self._grpc(base), dialect)

    def _make(self, name: str, base: str, grpc: str | None, dialect: Dialect | None) -> Json:
        facts = self._facts(self._runtime.agent(name), base, grpc, extended=dialect is not None)
        match dialect:
            case None:
                new, old = _in_1_0(facts), _in_0_3(facts)
                # What both have under one name is in the newer words, but for schemes, which hold both.
                return self._signed(old | new | _schemes(old), new, _without_empty(new))
            case Dialect.V1:
                new = _in_1_0(facts)
                return self._signed(new, _without_empty(new))
            case Dialect.V03_JSON:
                return self._signed(_in_0_3(facts))
            case Dialect.V03_PROTO:
                return self._signed(_in_0_3_proto(facts))

    def _facts(self, agent: Agent, base: str, grpc: str | None, *, extended: bool) -> "_Facts":
        title, profile = agent.title or agent.name, agent.profile
        description = agent.description or f"{title}, an agent served by Hector"
        skills = profile.skills or (Skill("chat", title, description, ("chat",)),)
        if extended:
            description = profile.extended_description or description
            skills += profile.extended_skills
        return _Facts(
            agent,
            title,
            description,
            skills,
            self.url(agent.name, base),
            grpc,
            is_default=agent.name == self._runtime.default_agent(self._default_agent),
            signs_in=self._signs_in,
            pushes=self._pushes(agent.name),
        )

    def _signed(self, card: Json, *forms: Json) -> Json:
        """Readers who keep only what their version knows, or drop what is empty, check one of the forms."""
        return card | {"signatures": self._sign([card, *forms])} if self._sign else card


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a card says, before it is put into words."""

    agent: Agent
    title: str
    description: str
    skills: Sequence[Skill]
    url: str
    grpc: str | None
    """`host:port`, or a URL if the operator says so."""
    is_default: bool
    """It is served to who names no agent, as nobody can in 0.3's gRPC."""
    signs_in: bool
    pushes: bool

    def common(self) -> Json:
        """What both versions say in the same words."""
        profile = self.agent.profile
        made: Json = {
            "name": self.title,
            "description": self.description,
            "version": profile.version or version("hector"),
            "capabilities": {"streaming": True, "pushNotifications": self.pushes}
            | _extensions(profile.extensions),
            "defaultInputModes": _INPUT_MODES,
            "defaultOutputModes": _OUTPUT_MODES,
            "skills": [_skill(skill) for skill in self.skills],
        }
        if profile.provider:
            made["provider"] = {"organization": profile.provider.organization, "url": profile.provider.url}
        return filled(made, documentationUrl=profile.documentation_url, iconUrl=profile.icon_url)


def _in_1_0(facts: _Facts) -> Json:
    made = facts.common()
    made["supportedInterfaces"] = [*_interfaces(facts, "1.0"), *_interfaces(facts, "0.3")]
    capabilities = made["capabilities"]
    assert isinstance(capabilities, dict)
    made["capabilities"] = capabilities | {"extendedAgentCard": facts.signs_in}
    if facts.signs_in:
        made["securitySchemes"] = {_BEARER: {"httpAuthSecurityScheme": {"scheme": "Bearer"}}}
        made["securityRequirements"] = [{"schemes": {_BEARER: {}}}]
    return made


def _interfaces(facts: _Facts, spoken: str) -> Iterator[Json]:
    for binding in ("HTTP+JSON", "JSONRPC"):
        yield {"url": facts.url, "protocolBinding": binding, "protocolVersion": spoken}
    if facts.grpc and (facts.is_default or spoken == "1.0"):
        made: Json = {
            "url": facts.grpc.rpartition("://")[2],
            "protocolBinding": "GRPC",
            "protocolVersion": spoken,
        }
        yield made if facts.is_default else made | {"tenant": facts.agent.name}


def _in_0_3(facts: _Facts) -> Json:
    """As its JSON schema has it; a scheme may also be read as protobuf has it."""
    made = facts.common()
    interfaces = [("HTTP+JSON", facts.url), ("JSONRPC", facts.url)]
    if facts.grpc and facts.is_default:
        # Clients of 0.3 hand it to gRPC as it stands, which understands no http://; others look for a URL.
        interfaces.append(("GRPC", facts.grpc))
    made |= {
        "protocolVersion": "0.3.0",
        "url": facts.url,
        "preferredTransport": "HTTP+JSON",
        "additionalInterfaces": [{"url": url, "transport": transport} for transport, url in interfaces],
    }
    if facts.signs_in:
        scheme: Json = {"httpAuthSecurityScheme": {"scheme": "Bearer"}, "type": "http", "scheme": "Bearer"}
        made["supportsAuthenticatedExtendedCard"] = True
        made["securitySchemes"] = {_BEARER: scheme}
        made["security"] = [{_BEARER: []}]
    return made


def _in_0_3_proto(facts: _Facts) -> Json:
    made = _in_0_3(facts)
    if facts.signs_in:
        made["securitySchemes"] = {_BEARER: {"httpAuthSecurityScheme": {"scheme": "Bearer"}}}
        made["security"] = [{"schemes": {_BEARER: {}}}]
    return made


def _schemes(card: Json) -> Json:
    return {"securitySchemes": card["securitySchemes"]} if "securitySchemes" in card else {}


def _without_empty(card: Json) -> Json:
    """As a2a-sdk signs and checks it: empty texts, lists and objects are left out at any depth."""
    found = _cleaned(card)
    assert isinstance(found, dict), "a card has a name"
    return found


def _cleaned(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {name: kept for name, each in value.items() if (kept := _cleaned(each)) is not None} or None
    if isinstance(value, list):
        return [kept for each in value if (kept := _cleaned(each)) is not None] or None
    return None if value == "" else value


def _skill(skill: Skill) -> Json:
    """Both versions demand tags."""
    made: Json = {
        "id": skill.id,
        "name": skill.name,
        "description": skill.description,
        "tags": [*skill.tags] or [skill.id],
    }
    lists = {"examples": skill.examples, "inputModes": skill.input_modes, "outputModes": skill.output_modes}
    return made | {name: [*values] for name, values in lists.items() if values}


def _extensions(extensions: Sequence[Extension]) -> Json:
    return {"extensions": [_extension(each) for each in extensions]} if extensions else {}


def _extension(extension: Extension) -> Json:
    made: Json = filled({"uri": extension.uri}, description=extension.description)
    if extension.required:
        made["required"] = True
    if extension.params:
        made["params"] = dict(extension.params)
    return made
