"""A fault in a configuration before it has a file and a line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]

_TOKENS = ("server", "auth", "tokens")
_TOKEN_KEYS = frozenset({"token", "user", "admin"})


@dataclass(frozen=True, slots=True)
class Fault:
    path: KeyPath
    text: str
    silences: KeyPath | None = None
    """Faults below this path follow from this one, and are not told."""


class FaultsError(ValueError):
    """Raised by a section's validator; paths are relative to that section."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(f"{dotted(fault.path)}: {fault.text}" for fault in faults))
        self.faults: Sequence[Fault] = faults


def starts_with(path: KeyPath, start: KeyPath) -> bool:
    return path[: len(start)] == start


def dotted(path: KeyPath) -> str:
    """As the operator reads it: `server.auth.tokens[0].user`."""
    text = ""
    for depth, part in enumerate(path):
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            # Whoever writes the tokens as keys has put secrets where names belong.
            hidden = path[:3] == _TOKENS and depth >= 3 and part not in _TOKEN_KEYS
            text += ("." if text else "") + ("***" if hidden else part)
    return text
