"""`@tool`: how a function says what kind of tool it is. Light: `import hector` brings it along."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

_MARK = "__hector_tool__"

DEFAULT_TIMEOUT = 60.0
"""Seconds."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ToolMark:
    name: str | None = None
    """None for the function's own."""
    idempotent: bool = False
    timeout: float | None = DEFAULT_TIMEOUT
    """Seconds; None for no limit."""


@overload
def tool(function: F, /) -> F: ...


@overload
def tool(
    *, name: str | None = None, idempotent: bool = False, timeout: float | None = DEFAULT_TIMEOUT
) -> Callable[[F], F]: ...


def tool(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    idempotent: bool = False,
    timeout: float | None = DEFAULT_TIMEOUT,
) -> F | Callable[[F], F]:
    """Declare a function to be a tool; it stays an ordinary function.

    `idempotent`: running it twice with the same arguments does no harm. `timeout`: seconds for one run, None
    for no limit.
    """
    mark = ToolMark(name, idempotent, timeout)

    def declare(function: F) -> F:
        setattr(function, _MARK, mark)
        return function

    return declare if function is None else declare(function)


def mark_of(function: Callable[..., Any]) -> ToolMark:
    """What the function was declared to be; the defaults if it was not."""
    mark = getattr(function, _MARK, None)
    return mark if isinstance(mark, ToolMark) else ToolMark()
