"""Documents that clients keep, and ask for again only if they changed (RFC 9110, RFC 9111)."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from starlette.responses import Response


def now() -> datetime:
    """As precise as headers are."""
    return datetime.now(UTC).replace(microsecond=0)


def kept(
    body: bytes, asked: Mapping[bytes, bytes], *, since: datetime, keeping: str, media_type: str
) -> Response:
    """The document, or 304 for who has it by the headers of their request; `keeping`: its Cache-Control."""
    headers = {
        "cache-control": keeping,
        "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        "last-modified": format_datetime(since, usegmt=True),
    }
    if _unchanged(asked, headers["etag"], since):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def _unchanged(asked: Mapping[bytes, bytes], etag: str, since: datetime) -> bool:
    """Where a client names what it has, dates do not count."""
    named = asked.get(b"if-none-match")
    if named is not None:
        known = [each.strip().removeprefix("W/") for each in named.decode("latin-1").split(",")]
        return etag in known or "*" in known
    try:
        seen = parsedate_to_datetime(asked.get(b"if-modified-since", b"").decode("latin-1"))
    except (ValueError, OverflowError):
        return False
    return since <= (seen if seen.tzinfo else seen.replace(tzinfo=UTC))
