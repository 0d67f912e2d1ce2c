"""Keys and ids: what they may be, and how new ones are made."""

import os
import re
import time
import uuid
from dataclasses import dataclass

from hector.domain.errors import InvalidError, TooLargeError

MAX_USER_ID = 255
MAX_SESSION_ID = 191
MAX_MESSAGE_ID = 191
"""Characters. 191 keeps a four-column key of 4-byte characters under MySQL's 3072 bytes."""

_AGENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PATH_WORDS = frozenset(
    {"agents", "extendedAgentCard", "health", "ready", "metrics", "sessions", "tasks", "v1"}
)
_SESSION_NAMESPACE = uuid.UUID("0a1f6f0e-6f7b-5c0e-9d3e-3b8f3f1f7a51")


@dataclass(frozen=True, slots=True, order=True)
class SessionKey:
    """Names one conversation. All three are compared as bytes."""

    agent_id: str
    user_id: str
    """'' where nobody is signed in."""
    session_id: str


def check_agent_name(name: str, field: str = "agent") -> str:
    if not _AGENT_NAME.fullmatch(name):
        raise InvalidError(
            field, f"{name!r} is no agent name: 1 to 64 of A-Z a-z 0-9 . _ -, a letter or digit first"
        )
    if name in _PATH_WORDS:
        raise InvalidError(field, f"{name!r} is a part of Hector's URLs; choose another name")
    return name


def check_user_id(user_id: str, field: str = "user") -> str:
    return _check_text(user_id, field, MAX_USER_ID)


def check_session_id(session_id: str, field: str = "context_id") -> str:
    return _check_filled(session_id, field, MAX_SESSION_ID)


def check_message_id(message_id: str, field: str = "message_id") -> str:
    return _check_filled(message_id, field, MAX_MESSAGE_ID)


def check_storable(text: str, field: str) -> str:
    """Refuses what not every database can store as text: NUL, and half of a surrogate pair."""
    if "\0" in text:
        raise InvalidError(field, "contains a NUL character (U+0000), which cannot be stored; remove it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidError(
            field, f"contains half of a surrogate pair at character {error.start}, which is not Unicode text"
        ) from None
    return text


def new_turn_id() -> str:
    """A UUID of version 7 (RFC 9562): time first, so that neighbours in time are neighbours in an index.

    The time serves locality alone; nothing is ordered by it.
    """
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def session_id_for(agent_id: str, user_id: str, message_id: str) -> str:
    """The session that a message without one starts.

    A message id that is a UUID always gives the same session, so that a repeat of a lost first request
    finds it.
    """
    try:
        uuid.UUID(message_id)
    except ValueError:
        return str(uuid.uuid4())
    # NUL cannot occur in an id, so no two triples give one name.
    return str(uuid.uuid5(_SESSION_NAMESPACE, f"{agent_id}\0{user_id}\0{message_id}"))


def _check_filled(text: str, field: str, longest: int) -> str:
    if not text:
        raise InvalidError(field, f"must not be empty; 1 to {longest} characters")
    return _check_text(text, field, longest)


def _check_text(text: str, field: str, longest: int) -> str:
    if len(text) > longest:
        raise TooLargeError(field, f"has {len(text)} characters; at most {longest} are allowed")
    return check_storable(text, field)
