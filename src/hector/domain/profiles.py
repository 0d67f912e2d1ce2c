"""What an agent tells of itself to those who may want to talk to it, beside its name."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hector.domain.messages import JsonValue


@dataclass(frozen=True, slots=True)
class Skill:
    id: str
    name: str
    description: str
    tags: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    input_modes: tuple[str, ...] = ()
    """Media types, where they differ from the agent's."""
    output_modes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Extension:
    """Of the protocol, by whose rules this agent plays."""

    uri: str
    description: str = ""
    required: bool = False
    """Nobody is served who does not know it."""
    params: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Provider:
    organization: str
    url: str


@dataclass(frozen=True, slots=True)
class Profile:
    version: str = ""
    """'' is Hector's own."""
    provider: Provider | None = None
    documentation_url: str | None = None
    icon_url: str | None = None
    skills: tuple[Skill, ...] = ()
    extensions: tuple[Extension, ...] = ()
    extended_description: str = ""
    """For callers who signed in, in place of the description."""
    extended_skills: tuple[Skill, ...] = ()
    """For callers who signed in, after the other skills."""
