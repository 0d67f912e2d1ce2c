"""Scalar values that need more than a type: durations, sizes, URLs, paths."""

import base64
import ipaddress
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from hector.domain.errors import InvalidError
from hector.domain.ids import check_agent_name, check_user_id

_LONGEST_DURATION = 366 * 24 * 3600.0
_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?) ?(?P<unit>ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LARGEST_SIZE = 2**50
_SIZE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?) ?(?P<unit>b|kb|mb|gb|kib|mib|gib)?", re.IGNORECASE)
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?\.?")
_TOOL = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x2b\x2d-\x7e]+")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+*-]+/[A-Za-z0-9!#$&^_.+*-]+(; ?[\x21-\x7e]+)*")
_DEEPEST = 50
_LARGEST_PORT = 65535
_LARGEST_INTEGER = 2**53 - 1
_SHORTEST_TOKEN = 8
_SETTING = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*")
_LONGEST_POSTGRES_NAME = 63


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("wanted a number")
    return value


def _no_nothing(text: str) -> str:
    if not text.strip():
        raise ValueError("wanted a text that is not empty")
    return text


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def parse_duration(value: Any) -> float:
    """Seconds of a number of seconds or of `1h`, `15m`, `30s`, `500ms`."""
    seconds = math.nan
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        seconds = float(found["number"]) * _SECONDS[found["unit"] or "s"]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    if not 0 <= seconds <= _LONGEST_DURATION:
        raise ValueError("wanted a number of seconds or a text like 1h, 15m, 30s, 500ms, at most 366 days")
    return float(seconds)


def parse_size(value: Any) -> int:
    """Bytes of a number of bytes or of `20MB` (10^6), `512KB`, `1GiB` (2^30)."""
    size: float = -1
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        size = float(found["number"]) * _BYTES[(found["unit"] or "b").lower()]
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    if not 0 <= size <= _LARGEST_SIZE or size != int(size):
        raise ValueError("wanted a number of bytes or a text like 512KB, 20MB, 1GiB")
    return int(size)


def _at_least(least: float) -> Callable[[float], float]:
    def check(seconds: float) -> float:
        if seconds < least:
            raise ValueError(f"wanted at least {least:g}s")
        return seconds

    return check


def _more_than_nothing(seconds: float) -> float:
    if not seconds:
        raise ValueError("wanted more than 0s")
    return seconds


def _seconds_between(least: float, most: float) -> Callable[[float], float]:
    def check(seconds: float) -> float:
        if not least <= seconds <= most:
            raise ValueError(f"wanted {least:g}s to {most:g}s")
        return seconds

    return check


def _size_between(least: int, most: int, words: str) -> Callable[[int], int]:
    def check(size: int) -> int:
        if not least <= size <= most:
            raise ValueError(f"wanted {words}")
        return size

    return check


def _http_url(url: str) -> str:
    if any(character in url for character in "@?#"):
        # Where a password or a key may stand.
        raise SecretFoundError("wanted a URL without user, password, ? and #")
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not _VISIBLE.fullmatch(url):
        raise ValueError("wanted a URL like https://host:port/path")
    return url.rstrip("/")


def _web_url(url: str) -> str:
    """Any page, as people are sent to it."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not _VISIBLE.fullmatch(url):
        raise ValueError("wanted a URL like https://host/path")
    return url


def _uri(text: str) -> str:
    if not _URI.fullmatch(text):
        raise ValueError("wanted a URI without commas, like https://host/extension/v1")
    return text


def _media_type(text: str) -> str:
    if not _MEDIA_TYPE.fullmatch(text):
        raise ValueError("wanted a media type like text/plain")
    return text


def json_params(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Numbers are doubles for whoever reads them."""
    level: list[Any] = [params]
    for _ in range(_DEEPEST):
        level = [
            inner
            for each in level
            if isinstance(each, Mapping | list)
            for inner in (each.values() if isinstance(each, Mapping) else each)
        ]
        if any(isinstance(each, float) and not math.isfinite(each) for each in level):
            raise ValueError("wanted finite numbers")
        if any(isinstance(each, int) and abs(each) > _LARGEST_INTEGER for each in level):
            raise ValueError("wanted whole numbers up to 2^53 - 1; write larger ones as text")
        if not level:
            return params
    raise ValueError(f"wanted at most {_DEEPEST} levels")


def _grpc_address(text: str) -> str:
    """As gRPC's clients write it, or as a URL."""
    wanted = "wanted host:port, like agents.example.com:443, or https://host:port"
    host, _, port = text.removeprefix("http://").removeprefix("https://").rpartition(":")
    if not port.isdecimal() or not 0 < int(port) <= _LARGEST_PORT:
        raise ValueError(wanted)
    _host(host[1:-1] if host.startswith("[") and host.endswith("]") else host, wanted)
    return text


def _bind_host(host: str) -> str:
    return _host(
        host, "wanted a host name or an IP address, without http://, brackets and port (see server.port)"
    )


def _host(host: str, wanted: str) -> str:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not _HOST_NAME.fullmatch(host):
            raise ValueError(wanted) from None
    return host


def _database_path(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not value.strip() or value == ":memory:":
        raise ValueError("wanted the path of a file; for sessions in memory use backend: memory")
    _no_dsn(value, "the path of a file")
    if value.startswith("file:"):
        raise ValueError("wanted the path of a file, not a URL")
    if value.endswith(("/", "\\")) or "\0" in value:
        raise ValueError("wanted the path of a file")
    return _file_path(value)


def _file_path(value: Any) -> Any:
    """`~` is the user's own folder here as it is in a shell."""
    if isinstance(value, str) and value.startswith("~"):
        try:
            return Path(value).expanduser()
        except RuntimeError:
            raise ValueError("wanted a path; the user after ~ is unknown") from None
    if value == "" or (isinstance(value, str) and "\0" in value):
        raise ValueError("wanted the path of a file")
    return value


def _readable(path: Path) -> Path:
    why = ""
    try:
        path.stat()
    except OSError as error:
        why = (error.strerror or "").lower()
    else:
        if not path.is_file():
            why = "it is none"
        elif not os.access(path, os.R_OK):
            why = "permission denied"
    if why:
        raise ValueError(f"wanted a file that can be read ({why})")
    return path


def _no_dsn(text: str, wanted: str) -> None:
    if "://" in text:
        raise SecretFoundError(f"wanted {wanted}; a URL is written under dsn")


def _named_on_server(what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        _no_dsn(text, what)
        _sendable(text)
        return text

    return check


def _sendable(text: str) -> str:
    """No protocol has room for a NUL, nor UTF-8 for half a character."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("wanted a text without NUL and lone surrogates")
    return text


def _sendable_secret(secret: SecretStr) -> SecretStr:
    _sendable(secret.get_secret_value())
    return secret


def _database_host(host: str) -> str:
    if "@" in host or "://" in host:
        # Where a password may stand.
        raise SecretFoundError("wanted a host alone; a URL is written under dsn")
    if "," in host:
        raise ValueError("wanted one host: the primary, or a name or proxy that leads to it")
    if not host.startswith("/"):
        return _host(
            host,
            "wanted a host name or an IP address without brackets and port, or the path of a Unix socket",
        )
    return _sendable(host)


def _schema_name(name: str) -> str:
    if not name or len(name.encode(errors="replace")) > _LONGEST_POSTGRES_NAME:
        raise ValueError(f"wanted 1 to {_LONGEST_POSTGRES_NAME} bytes")
    if name.startswith("pg_"):
        raise ValueError("wanted a name that does not begin with pg_, for those are PostgreSQL's own")
    _no_dsn(name, "a schema's name")
    return _sendable(name)


def _setting_name(name: str) -> str:
    if not _SETTING.fullmatch(name):
        raise ValueError("wanted the name of a server's setting, of a-z 0-9 _ and a dot")
    return name


def _setting_value(value: Any) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case str():
            return _sendable(value)
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return str(value)
        case _:
            raise ValueError("wanted a text, a number, true or false")


def _visible(secret: SecretStr) -> SecretStr:
    if not _VISIBLE.fullmatch(secret.get_secret_value()):
        raise ValueError("wanted visible ASCII characters without spaces, for it travels in an HTTP header")
    return secret


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < _SHORTEST_TOKEN:
        raise ValueError(f"wanted at least {_SHORTEST_TOKEN} characters")
    return secret


def _push_target(text: str) -> str:
    wanted = "wanted a host name, *.name, an IP address, or a network like 10.1.0.0/16"
    try:
        ipaddress.ip_network(text)
    except ValueError:
        if not _HOST_NAME.fullmatch(text.removeprefix("*.")) or text.replace(".", "").isdigit():
            raise ValueError(wanted) from None
    return text


def _signing_key(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    try:
        size = len(base64.b64decode(text.removeprefix("whsec_"), validate=True))
    except ValueError:
        size = 0
    if not text.startswith("whsec_") or not 24 <= size <= 64:
        raise SecretFoundError(
            "wanted whsec_ and 24 to 64 random bytes in base64, as `openssl rand -base64 32` prints them"
        )
    return secret


def _tool_path(text: str) -> str:
    if not _TOOL.fullmatch(text):
        raise ValueError("wanted a Python function as module:function")
    return text


def _named(check: Callable[[str, str], str]) -> Callable[[str], str]:
    """A check of the domain's, whose errors are a caller's there and the operator's here."""

    def checked(text: str) -> str:
        try:
            return check(text, "")
        except InvalidError as error:
            raise ValueError(str(error).removeprefix(": ")) from None

    return checked


class SecretFoundError(ValueError):
    """The value is not to be shown."""


_NoBool = BeforeValidator(_no_bool)
_Duration = BeforeValidator(parse_duration)
_Size = BeforeValidator(parse_size)

Filled: TypeAlias = Annotated[str, AfterValidator(_no_nothing)]
AgentName: TypeAlias = Annotated[str, AfterValidator(_named(check_agent_name))]
UserId: TypeAlias = Annotated[Filled, AfterValidator(_named(check_user_id))]
ApiKey: TypeAlias = Annotated[SecretStr, AfterValidator(_visible)]
Token: TypeAlias = Annotated[SecretStr, AfterValidator(_visible), AfterValidator(_long_enough)]
PushTarget: TypeAlias = Annotated[str, AfterValidator(_push_target)]
SigningKey: TypeAlias = Annotated[SecretStr, AfterValidator(_signing_key)]
ToolPath: TypeAlias = Annotated[str, AfterValidator(_tool_path)]
GrpcAddress: TypeAlias = Annotated[str, AfterValidator(_grpc_address)]
BindHost: TypeAlias = Annotated[str, AfterValidator(_bind_host)]
HttpUrl: TypeAlias = Annotated[str, AfterValidator(_http_url)]
DatabasePath: TypeAlias = Annotated[Path, BeforeValidator(_database_path)]
WebUrl: TypeAlias = Annotated[str, AfterValidator(_web_url)]
Uri: TypeAlias = Annotated[str, AfterValidator(_uri)]
MediaType: TypeAlias = Annotated[str, AfterValidator(_media_type)]
FilePath: TypeAlias = Annotated[Path, BeforeValidator(_file_path)]
ReadableFile: TypeAlias = Annotated[Path, BeforeValidator(_file_path), AfterValidator(_readable)]
DatabaseHost: TypeAlias = Annotated[str, AfterValidator(_database_host)]
DatabaseName: TypeAlias = Annotated[Filled, AfterValidator(_named_on_server("a database's name"))]
DatabaseUser: TypeAlias = Annotated[Filled, AfterValidator(_named_on_server("a user's name"))]
Password: TypeAlias = Annotated[SecretStr, AfterValidator(_sendable_secret)]
SchemaName: TypeAlias = Annotated[str, AfterValidator(_schema_name)]
SettingName: TypeAlias = Annotated[str, AfterValidator(_setting_name)]
SettingValue: TypeAlias = Annotated[str, BeforeValidator(_setting_value)]

Port: TypeAlias = Annotated[int, _NoBool, Field(ge=0, le=65534)]
DatabasePort: TypeAlias = Annotated[int, _NoBool, Field(ge=1, le=65535)]
Count: TypeAlias = Annotated[int, _NoBool, Field(ge=1)]
NoneOrMore: TypeAlias = Annotated[int, _NoBool, Field(ge=0)]
Connections: TypeAlias = Annotated[int, _NoBool, Field(ge=2)]
Threads: TypeAlias = Annotated[int, _NoBool, Field(ge=1, le=256)]
Share: TypeAlias = Annotated[float, _NoBool, Field(gt=0, le=1)]
Temperature: TypeAlias = Annotated[float, _NoBool, Field(ge=0, le=2)]

Duration: TypeAlias = Annotated[float, _Duration]
"""Seconds; 0 is allowed."""
TimeLimit: TypeAlias = Annotated[float, _Duration, AfterValidator(_more_than_nothing)]
# Servers count milliseconds, where 0 means no limit, in 32 bits.
StatementTimeout: TypeAlias = Annotated[float, _Duration, AfterValidator(_seconds_between(0.01, 24 * 3600))]
LeaseTtl: TypeAlias = Annotated[float, _Duration, AfterValidator(_at_least(0.5))]
BodySize: TypeAlias = Annotated[int, _Size, AfterValidator(_size_between(1000, 2**30, "1KB to 1GiB"))]
# What is stored grows when it is escaped, and SQLite takes texts up to 1 GB.
MessageSize: TypeAlias = Annotated[
    int, _Size, AfterValidator(_size_between(1, 256 * 10**6, "1 byte to 256MB"))
]

Script: TypeAlias = Literal["echo", "recall", "obey"]
OnBusy: TypeAlias = Literal["wait", "reject"]
OnCrash: TypeAlias = Literal["resume", "fail"]
SslMode: TypeAlias = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
Synchronous: TypeAlias = Annotated[Literal["full", "normal"], BeforeValidator(_lower)]
LogLevel: TypeAlias = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
LogFormat: TypeAlias = Literal["text", "json"]
