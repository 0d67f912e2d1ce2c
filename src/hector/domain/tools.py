"""What an agent can do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from hector.domain.messages import JsonValue


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a model is told of a tool."""

    name: str
    """1 to 64 of A-Z a-z 0-9 _ -; the providers' common rule."""
    description: str
    parameters: Mapping[str, JsonValue]
    """JSON Schema of an object."""


class Tool(Protocol):
    @property
    def spec(self) -> ToolSpec: ...

    @property
    def idempotent(self) -> bool:
        """Running it twice with the same arguments does no harm."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds for one run; None for no limit."""
        ...

    async def run(self, arguments: Mapping[str, JsonValue]) -> str:
        """The result as text for the model.

        Raises `ToolError` to tell the model what went wrong and `InputRequiredError` to ask the user.
        Anything else is a defect of the tool: logged, and told to the model without its details.
        """
        ...
