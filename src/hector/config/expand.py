"""`${NAME}` and `${NAME:-default}` in a text; pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hector.config.suggest import did_you_mean

# A `${` that is not followed by a name and what may follow it matches alone, and is then a fault.
_SUBSTITUTION = re.compile(
    r"(?P<escaped>\$\$\{)|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<fallback>:-(?P<default>[^}]*))?\})?"
)


@dataclass(frozen=True, slots=True)
class Expansion:
    text: str
    """With '' where a substitution is at fault."""
    variables: tuple[str, ...] = ()
    """What was read, or would have been; the text is as secret as they are."""
    faults: tuple[str, ...] = ()


def expand(text: str, environ: Mapping[str, str]) -> Expansion:
    """Replace substitutions, once: what a variable holds is not looked into.

    `${NAME}` must be set; in `${NAME:-default}` it may be unset or empty; `$${` is a plain `${`.
    """
    variables: list[str] = []
    faults: list[str] = []

    def replacement(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "${"
        name, default = match["name"], match["default"] or ""
        if name is None or "${" in default:
            faults.append(_MALFORMED)
            return ""
        variables.append(name)
        found = environ.get(name)
        if match["fallback"]:
            return found or default
        if found is None:
            faults.append(_unset(name, environ))
            return ""
        return found

    expanded = _SUBSTITUTION.sub(replacement, text)
    return Expansion(expanded, tuple(variables), tuple(faults))


_MALFORMED = (
    "wanted ${NAME} or ${NAME:-default}, with a NAME of A-Z a-z 0-9 _ and a default without '}' and '${';"
    " a literal '${' is written '$${'"
)


def _unset(name: str, environ: Mapping[str, str]) -> str:
    return (
        f"environment variable {name} is not set{did_you_mean(name, environ)};"
        f" set it, or write ${{{name}:-default}} to do without"
    )
