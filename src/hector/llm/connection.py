"""What stands between a `Model` of ours and a provider's library."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for the annotation only: importing pydantic-ai takes most of a second
    import pydantic_ai.models

SILENCE = 300.0
"""Seconds that a provider may say nothing at all; models that think before they answer take minutes."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A pydantic-ai model that is ready to be asked, and how to let go of it."""

    model: "pydantic_ai.models.Model"
    close: Callable[[], Awaitable[None]]
