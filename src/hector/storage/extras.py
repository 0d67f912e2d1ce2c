"""The packages that a driver for a database server needs beyond Hector's own."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Literal, TypeAlias

ServerKind: TypeAlias = Literal["postgres", "mysql"]

_MODULES: Mapping[ServerKind, Sequence[str]] = {
    "postgres": ("asyncpg", "greenlet"),
    "mysql": ("asyncmy", "greenlet"),
}


def missing_driver(driver: ServerKind) -> str | None:
    """What to install; None if nothing is missing. Imports nothing."""
    if all(find_spec(module) for module in _MODULES[driver]):
        return None
    return f"driver {driver} needs a package that is not installed: pip install 'hector[{driver}]'"
