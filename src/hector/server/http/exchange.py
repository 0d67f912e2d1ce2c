"""What a handler knows of a request beyond its path: who calls, in which words, and how to answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from hector.domain.errors import InvalidError
from hector.domain.messages import JsonValue
from hector.server.a2a.dialect import Dialect, named_version
from hector.server.a2a.extensions import HEADER, OLD_HEADER, requested
from hector.server.a2a.fields import snake_case
from hector.server.a2a.operations import LastEvent
from hector.server.auth import Caller
from hector.server.http.responses import json_response
from hector.server.statuses import VersionNotSupportedError

_NOBODY = Caller("", admin=False, may_browse=False)
_JSON, _A2A_JSON = "application/json", "application/a2a+json"


_EXTENSIONS = frozenset({HEADER.encode(), OLD_HEADER.encode()})

RpcId: TypeAlias = str | int | None


@dataclass(slots=True)
class Exchange:
    headers: Mapping[bytes, bytes]
    """By name in lower case; the last of a name that comes twice."""
    query: Mapping[str, str]
    media_type: str
    """The answer's: the caller's own."""
    scheme: str = "http"
    extensions: tuple[str, ...] = ()
    """Of A2A, that the caller asks for."""
    activated: tuple[str, ...] = ()
    """Those of them that they get."""
    caller: Caller = _NOBODY
    version: Dialect | None = None
    """Named by the caller; not read yet where it was refused."""
    version_refused: bool = False
    rpc: bool = False
    """The answer is JSON-RPC's."""
    rpc_id: RpcId = None
    """Of the call, as far as it is known."""

    @property
    def numeric(self) -> bool:
        """Errors have A2A 1.0's numeric code: who names a version that is not spoken knows a later one."""
        return self.version is Dialect.V1 or self.version_refused

    @classmethod
    def of(cls, scope: Scope) -> "Exchange":
        headers = dict(scope["headers"])
        query = scope["query_string"]
        asked: tuple[str, ...] = ()
        if _EXTENSIONS & headers.keys():
            # They may come in several headers of one name.
            asked = requested(
                value.decode("latin-1") for name, value in scope["headers"] if name in _EXTENSIONS
            )
        said = headers.get(b"content-type") or headers.get(b"accept") or b""
        return cls(
            headers,
            dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {},
            _A2A_JSON if b"application/a2a+json" in said else _JSON,
            scope.get("scheme", "http"),
            asked,
        )

    @property
    def reached(self) -> str:
        """The URL under which the caller reached this server."""
        return f"{self.scheme}://{self.headers.get(b'host', b'localhost').decode('latin-1')}"

    def read_version(self) -> None:
        """Raises `VersionNotSupportedError`."""
        header = self.headers.get(b"a2a-version")
        try:
            self.version = named_version(
                header.decode("latin-1") if header else self.query.get("A2A-Version")
            )
        except VersionNotSupportedError:
            self.version_refused = True
            raise

    @property
    def idempotency_key(self) -> str | None:
        key = self.headers.get(b"idempotency-key")
        return key.decode("latin-1") if key else None

    def last_event(self) -> LastEvent | None:
        """Where a stream is to go on. Raises `InvalidError`."""
        named = self.headers.get(b"last-event-id")
        return LastEvent.parse(named.decode("latin-1")) if named else None

    def count(self, name: str, default: int | None, *, least: int = 1, most: int) -> int | None:
        """A whole number of the query, under either spelling. Raises `InvalidError`."""
        spelt = name if name in self.query else snake_case(name)
        text = self.query.get(spelt)
        if text is None:
            return default
        if text.isascii() and text.isdecimal() and len(text) < 19 and least <= int(text) <= most:
            return int(text)
        raise InvalidError(spelt, f"wanted a whole number from {least} to {most}")

    def answer(self, value: Mapping[str, JsonValue] | list[JsonValue]) -> Response:
        answer = json_response(value, media_type=self.media_type)
        if self.activated:
            answer.headers.update(self.agreed())
        return answer

    def agreed(self) -> Mapping[str, str]:
        """Headers that tell the activated extensions, under the name that the caller used."""
        if not self.activated:
            return {}
        names = [name for name in (HEADER, OLD_HEADER) if name.encode() in self.headers]
        return dict.fromkeys(names, ", ".join(self.activated))


def exchange_of(request: Request) -> Exchange:
    found: Exchange = request.scope["hector.exchange"]
    return found
