"""Hector's public names: what a tool of one's own needs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hector.domain.errors import InputRequiredError, ToolError
    from hector.tools.mark import tool

    __version__: str

__all__ = ["InputRequiredError", "ToolError", "__version__", "tool"]


def __getattr__(name: str) -> Any:
    """Imports are made when a name is first used: every start of the command line comes through here."""
    match name:
        case "InputRequiredError" | "ToolError":
            from hector.domain import errors  # noqa: PLC0415

            value = getattr(errors, name)
        case "tool":
            from hector.tools.mark import tool as value  # noqa: PLC0415
        case "__version__":
            from importlib.metadata import version  # noqa: PLC0415

            value = version("hector")
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
