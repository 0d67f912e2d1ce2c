"""A database's address as one string -> what it says, under the keys that say it one by one; pure.

Nothing that stands in the string is repeated in a fault, except the name of a parameter: it may hold a
password, and one that is not encoded may reach into any other part.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

from hector.config.suggest import did_you_mean, one_of

Driver: TypeAlias = Literal["sqlite", "postgres", "mysql"]

DRIVERS: Mapping[str, Driver] = {
    "sqlite": "sqlite",
    "sqlite3": "sqlite",
    "postgres": "postgres",
    "postgresql": "postgres",
    "mysql": "mysql",
    "mariadb": "mysql",
}
"""By every name that is understood, also as a scheme."""
_FORMS: Mapping[Driver, str] = {
    "sqlite": "sqlite:///PATH",
    "postgres": "postgres://USER:PASSWORD@HOST:5432/DATABASE",
    "mysql": "mysql://USER:PASSWORD@HOST:3306/DATABASE",
}
_WANTED = f"wanted a URL like {one_of(_FORMS.values())}"

_URL = re.compile(
    r"(?P<scheme>[^:/?#@]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?",
    re.DOTALL,
)
_GO = re.compile(r"@(tcp|unix)[46]?\(")
_KEYWORDS = re.compile(r"\s*(host|hostaddr|port|user|password|dbname|sslmode)\s*=")
_PLACE = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>[^:]*))?")
_HALF_ENCODED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,40}")

_OTHER_NAMES: Mapping[str, str] = {
    "dbname": "database",
    "sslmode": "ssl_mode",
    "sslcert": "ssl_cert",
    "sslkey": "ssl_key",
    "sslrootcert": "ssl_root_cert",
    "ssl_ca": "ssl_root_cert",
    "unix_socket": "host",
}
"""libpq's, and those of MySQL's clients."""
_NO_PARAMETERS = frozenset({"driver", "dsn", "url", "options"})
_ENCODE = "in a user, password or database / is written %2F, ? %3F, # %23, @ %40 and % %25"


@dataclass(frozen=True, slots=True)
class Dsn:
    driver: Driver | None
    """None: the string does not say, and there is a fault."""
    values: Mapping[str, Any]
    """By the section's key, all texts but `options`."""
    faults: Sequence[str] = ()


def read_dsn(text: str, keys: Mapping[Driver, Collection[str]]) -> Dsn:
    """`keys` are those of each driver's section."""
    text = text.strip()  # a secret's file often ends with a line break
    found = _URL.fullmatch(text)
    base, plus, _ = found["scheme"].lower().partition("+") if found else ("", "", "")
    driver = DRIVERS.get(base)
    if driver in (None, "mysql") and (_GO.search(text) or (not found and "@/" in text)):
        return Dsn("mysql", {}, [f"has the form of Go's driver; wanted it as a URL: {_FORMS['mysql']}"])
    if not found or not driver:
        return Dsn(None, {}, [_no_url(text, base)])
    reading = _Reading(driver, keys)
    if plus:
        reading.faults.append(f"names a driver of Python's after '+'; wanted {base}:// alone")
    _read_parts(found, reading)
    return Dsn(driver, reading.values, reading.faults)


def _no_url(text: str, scheme: str) -> str:
    if text.startswith("jdbc:"):
        return f"is for JDBC; {_WANTED}"
    if _KEYWORDS.match(text):
        return f"is a list of key=value; {_WANTED}, or each under a key of its own"
    return f"{_WANTED}{did_you_mean(scheme, DRIVERS) if scheme else ''}"


class _Reading:
    """What was understood so far, and what was not."""

    def __init__(self, driver: Driver, keys: Mapping[Driver, Collection[str]]) -> None:
        self.driver = driver
        self.keys = keys
        self.values: dict[str, Any] = {}
        self.faults: list[str] = []

    def add(self, key: str, encoded: str) -> None:
        """A part that says nothing counts as not written."""
        if not encoded:
            return
        if key in self.values:
            self.faults.append(f"gives its {key} twice; keep one")
        try:
            self.values[key] = _decoded(encoded)
        except ValueError as error:
            self.faults.append(f"its {key}: {error}")


def _read_parts(found: re.Match[str], reading: _Reading) -> None:
    authority, path, query = found["authority"], found["path"], found["query"] or ""
    if found["fragment"] is not None or "@" in query or ("@" in path and reading.driver != "sqlite"):
        # Where the parts end is then a guess, and what seems to be one may belong to the password.
        reading.faults.append(f"has a part that is not encoded: {_ENCODE}")
        return
    if reading.driver != "sqlite":
        _read_authority(authority, reading)
        if "/" in path[1:]:
            reading.faults.append(f"its database: holds a '/'; {_ENCODE}")
    elif authority:
        reading.faults.append(
            "wanted sqlite:///PATH for a path from the folder in which Hector is started,"
            " sqlite:////PATH for one from the root"
        )
    reading.add("database", path[1:])
    _read_parameters(query, reading)


def _read_authority(authority: str, reading: _Reading) -> None:
    who, _, where = authority.rpartition("@")
    user, _, password = who.partition(":")
    reading.add("user", user)
    reading.add("password", password)
    place = _PLACE.fullmatch(where)
    if "," in where:
        reading.faults.append(
            "names several hosts; wanted one: the primary, or a name or proxy that leads to it"
        )
    elif not place:
        reading.faults.append("its host: wanted an IPv6 address in brackets, as in [::1]:5432")
    else:
        reading.add("host", place["host"].removeprefix("[").removesuffix("]"))
        reading.add("port", place["port"] or "")


def _read_parameters(query: str, reading: _Reading) -> None:
    # A password that is not encoded may go on in what seems to be the name of the next parameter.
    nameable = "password" not in query.lower()
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if not equals:
            reading.faults.append("one of its parameters: wanted name=value")
            continue
        written = name.replace("-", "_")
        key = _OTHER_NAMES.get(written, written)
        if key in reading.keys[reading.driver] and key not in _NO_PARAMETERS:
            reading.add(key, value)
        elif written == "application_name" and reading.driver == "postgres":
            reading.add(written, value)
        else:
            reading.faults.append(_unknown_parameter(name if nameable else "", key, reading))
    if application := reading.values.pop("application_name", None):
        reading.values["options"] = {"application_name": application}


def _unknown_parameter(name: str, key: str, reading: _Reading) -> str:
    place = f"its parameter {name!r}" if _NAME.fullmatch(name) else "one of its parameters"
    if key in _NO_PARAMETERS:
        return f"{place}: wanted it under a key of its own"
    if drivers := [driver for driver, keys in reading.keys.items() if key in keys]:
        return f"{place}: is for driver {one_of(drivers)}, and this is {reading.driver}"
    known = [other for other in reading.keys[reading.driver] if other not in _NO_PARAMETERS]
    hint = f" (known: {', '.join(known)})"
    return f"{place}: unknown{did_you_mean(key, known) or hint}"


def _decoded(encoded: str) -> str:
    """Raises `ValueError`, whose text holds nothing of what was decoded."""
    if _HALF_ENCODED.search(encoded):
        raise ValueError("a '%' that stands for itself is written %25")
    try:
        text = unquote_to_bytes(encoded).decode()
    except UnicodeError:
        raise ValueError("is not UTF-8 when it is decoded") from None
    if "\0" in text:
        raise ValueError("holds a NUL")
    return text
