"""Lists of tasks: which ones a caller wants, and the token with which the next page is asked for."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hector.domain.errors import InvalidError
from hector.domain.ids import check_storable
from hector.domain.messages import JsonValue
from hector.domain.turns import Turn, TurnFilter, TurnPlace, TurnState, Wanted
from hector.runtime.runtime import Runtime
from hector.server.a2a import wire
from hector.server.a2a.dialect import Dialect
from hector.server.a2a.fields import Fields, shown
from hector.server.a2a.wire import Json

LONGEST_HISTORY = 2**31 - 1
"""Messages of a task's history that may be asked for: what A2A's integers hold, for some ask so for all."""
LARGEST_PAGE = 100
_USUAL_PAGE = 50
_LONGEST_TOKEN = 512
_STATES = {f"TASK_STATE_{state.name}": state for state in TurnState}
_UNSPECIFIED = "TASK_STATE_UNSPECIFIED"
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)")
_FIRST_TIME = datetime(1970, 1, 1, tzinfo=UTC)

PARAMETERS = frozenset(
    {
        "contextId",
        "status",
        "pageSize",
        "pageToken",
        "historyLength",
        "statusTimestampAfter",
        "includeArtifacts",
    }
)


@dataclass(frozen=True, slots=True)
class ListRequest:
    which: TurnFilter
    size: int
    token: str | None
    history: int
    artifacts: bool

    @property
    def wanted(self) -> Wanted:
        if self.history:
            return "all"
        return "replies" if self.artifacts else "questions"


class Listing:
    """What A2A's operations do with the tasks of one agent and one user."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def page(self, agent: str, user_id: str, asked: ListRequest) -> Json:
        """As A2A 1.0 has it. Raises `InvalidError` for a token that is not of this listing."""
        listing = _fingerprint(agent, user_id, asked.which)
        after = read_token(asked.token, listing) if asked.token else None
        found = await self._runtime.turns(
            agent, user_id, asked.which, limit=asked.size, after=after, wanted=asked.wanted
        )
        return {
            "tasks": [_task(turn, asked) for turn in found.turns],
            "nextPageToken": write_token(found.next, listing) if found.next else "",
            "pageSize": asked.size,
            "totalSize": found.total,
        }

    async def newest(self, agent: str, user_id: str) -> list[JsonValue]:
        """As A2A 0.3 has it, which knows neither pages nor choices."""
        found = await self._runtime.turns(agent, user_id, TurnFilter(), limit=LARGEST_PAGE, wanted="replies")
        # Its text, the only place where it has this operation, shows them with their kind.
        return [wire.task(Dialect.V03_PROTO, turn) | {"kind": "task"} for turn in found.turns]


def _task(turn: Turn, asked: ListRequest) -> Json:
    made = wire.task(Dialect.V1, turn, history=asked.history)
    if asked.artifacts:
        made.setdefault("artifacts", [])
    else:
        made.pop("artifacts", None)
    return made


# ------------------------------------------------------------------------------------------ requests


def in_query(query: Mapping[str, str]) -> Fields:
    """The parameters of a URL, with numbers and booleans as JSON has them."""
    return Fields({name: _value(name, text) for name, text in query.items() if name in PARAMETERS}, "")


def _value(name: str, text: str) -> JsonValue:
    if name in {"pageSize", "historyLength"} and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    if name == "includeArtifacts":
        return {"true": True, "false": False}.get(text, text)
    return text


def read_list(fields: Fields) -> ListRequest:
    """Raises `InvalidError`."""
    context = fields.filled("contextId")
    since = fields.filled("statusTimestampAfter")
    which = TurnFilter(
        check_storable(context, fields.path("contextId")) if context else None,
        _state(fields),
        _moment(since, fields.path("statusTimestampAfter")) if since else None,
    )
    return ListRequest(
        which,
        _number(fields, "pageSize", 1, LARGEST_PAGE, otherwise=_USUAL_PAGE),
        fields.filled("pageToken"),
        _number(fields, "historyLength", 0, LONGEST_HISTORY, otherwise=0),
        fields.flag("includeArtifacts") or False,
    )


def _number(fields: Fields, name: str, least: int, most: int, *, otherwise: int) -> int:
    value = fields.raw(name)
    if value is None:
        return otherwise
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise InvalidError(
        fields.path(name), f"wanted a whole number from {least} to {most}, found {shown(value)}"
    )


def _state(fields: Fields) -> TurnState | None:
    name = fields.filled("status")
    if name is None or name == _UNSPECIFIED:
        return None
    if name not in _STATES:
        raise InvalidError("status", f"wanted one of {', '.join(_STATES)}")
    return _STATES[name]


def _moment(text: str, field: str) -> datetime:
    """Rounded up to milliseconds, which is what a task's time is shown in."""
    found = _TIME.fullmatch(text)
    try:
        if found is None:
            raise ValueError("not of this form")
        seconds, fraction, zone = found.groups()
        whole = datetime.fromisoformat(f"{seconds}{zone}".upper()).astimezone(UTC)
        moment = whole + timedelta(milliseconds=-(-int((fraction or "").ljust(9, "0")) // 1_000_000))
    except (ValueError, OverflowError):
        raise InvalidError(
            field, "wanted a time in ISO 8601 with its zone, like 2026-01-31T10:00:00Z"
        ) from None
    return max(moment, _FIRST_TIME)  # not every database can tell earlier times


# -------------------------------------------------------------------------------------------- tokens


def _fingerprint(agent: str, user_id: str, which: TurnFilter) -> str:
    """Tells listings apart. No secret: a token leads to nobody else's tasks, whatever is in it."""
    since = which.changed_since.isoformat() if which.changed_since else None
    listing = json.dumps([agent, user_id, which.session_id, which.state, since])
    return hashlib.sha256(listing.encode()).hexdigest()[:16]


def write_token(place: TurnPlace, listing: str) -> str:
    text = json.dumps([listing, place.changed_at.isoformat(), place.turn_id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_token(token: str, listing: str) -> TurnPlace:
    """Of a token as a client sends it, which may be anything."""
    try:
        if len(token) > _LONGEST_TOKEN:
            raise ValueError("longer than any that a listing gives")
        found = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True))
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise ValueError("made of texts")
        of_listing, time, turn_id = found
        place = TurnPlace(datetime.fromisoformat(time).astimezone(UTC), check_storable(turn_id, "pageToken"))
    except (ValueError, OverflowError, RecursionError, InvalidError):
        raise InvalidError(
            "pageToken", "is not one that a listing gave; leave it out to start again"
        ) from None
    if of_listing != listing:
        raise InvalidError(
            "pageToken",
            "is of a listing of other tasks; ask with the same contextId, status and statusTimestampAfter,"
            " or leave it out to start again",
        )
    return place
