"""The headers by which a receiver knows a notification, and that it came from here: Standard Webhooks."""

import base64
import hashlib
import hmac
import uuid
from collections.abc import Sequence

from hector.domain.notices import PushTarget

KEY_PREFIX = "whsec_"
_NAMESPACE = uuid.UUID("5c6cb3f2-6c1b-5d0e-8a2b-0f3f6f3c1d77")


def notification_id(target: PushTarget, place: int) -> str:
    """The same in each attempt to deliver it, and of no other notification."""
    key = target.key
    # NUL cannot occur in an id.
    name = "\0".join((key.agent_id, key.user_id, target.turn_id, target.config_id, str(place)))
    return f"msg_{uuid.uuid5(_NAMESPACE, name).hex}"


def key_of(secret: str) -> bytes:
    """The bytes of `whsec_BASE64`. Raises `ValueError`."""
    if not secret.startswith(KEY_PREFIX):
        raise ValueError(f"wanted {KEY_PREFIX} at its beginning")
    return base64.b64decode(secret.removeprefix(KEY_PREFIX), validate=True)


def signed(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of one attempt; with several keys one signature each, of which one must fit."""
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if keys:
        content = f"{message_id}.{timestamp}.".encode() + body
        headers["webhook-signature"] = " ".join(f"v1,{_signature(key, content)}" for key in keys)
    return headers


def _signature(key: bytes, content: bytes) -> str:
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
