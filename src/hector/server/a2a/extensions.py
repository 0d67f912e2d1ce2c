"""A2A's extensions: what a caller asks for, what an agent has, and what both agree on."""

from collections.abc import Iterable

from hector.domain.agents import Agent
from hector.server.a2a.dialect import Dialect
from hector.server.statuses import ExtensionRequiredError

HEADER, OLD_HEADER = "a2a-extensions", "x-a2a-extensions"
"""Of HTTP, and keys of gRPC's metadata; the second is 0.3's."""


def requested(values: Iterable[str]) -> tuple[str, ...]:
    """Of the header's values, each a list of URIs with commas between them."""
    named = (each.strip() for value in values for each in value.split(","))
    return tuple(dict.fromkeys(each for each in named if each))


def activated(agent: Agent, dialect: Dialect, asked: tuple[str, ...]) -> tuple[str, ...]:
    """What the agent has of that; others are ignored, as A2A has it. Raises `ExtensionRequiredError`."""
    declared = agent.profile.extensions
    if dialect is Dialect.V1:
        missing = [each.uri for each in declared if each.required and each.uri not in asked]
        if missing:
            raise ExtensionRequiredError(agent.name, missing)
    return tuple(each.uri for each in declared if each.uri in asked)
