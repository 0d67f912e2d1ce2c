"""The three ways in which A2A is written in JSON, and how to tell which one a caller speaks."""

from collections.abc import Mapping
from enum import Enum

from hector.domain.messages import JsonValue
from hector.server.statuses import VersionNotSupportedError


class Dialect(Enum):
    """A caller is answered in the dialect that they speak."""

    V1 = "1.0"
    """`parts: [{"text": ...}]`, states TASK_STATE_COMPLETED."""
    V03_PROTO = "0.3 proto"
    """`content: [{"text": ...}]`, states TASK_STATE_COMPLETED; 0.3's JSON over HTTP."""
    V03_JSON = "0.3 json"
    """`parts: [{"kind": "text", "text": ...}]`, states completed; 0.3's JSON-RPC, and some clients' HTTP."""


_VERSIONS = {"1.0": Dialect.V1, "0.3": Dialect.V03_PROTO}


def named_version(text: str | None) -> Dialect | None:
    """What an `A2A-Version` says: `1.0`, `0.3` or with a patch number; None if it says nothing.

    For 0.3 the shape of the body still decides which of its two dialects. Raises `VersionNotSupportedError`.
    """
    if not text or not (text := text.strip()):
        return None
    major_minor = ".".join(text.split(".")[:2])
    known = _VERSIONS.get(major_minor)
    if known is None or not text.replace(".", "").isdecimal() or text.count(".") > 2:
        raise VersionNotSupportedError(text)
    return known


def spoken(named: Dialect | None, message: Mapping[str, JsonValue]) -> Dialect:
    """The dialect of a request, by the version it names and the shape of its message."""
    if named in (Dialect.V1, Dialect.V03_JSON):
        return named
    if message.get("content") is not None:
        return Dialect.V03_PROTO
    parts = message.get("parts")
    has_kinds = isinstance(parts, list) and any(isinstance(part, dict) and "kind" in part for part in parts)
    if has_kinds or named is not None:
        return Dialect.V03_JSON
    return Dialect.V1
