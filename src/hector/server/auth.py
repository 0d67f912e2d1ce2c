"""Who is calling, and what they may see."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from hector.config import TokenSection
from hector.domain.errors import ForbiddenError, UnauthenticatedError
from hector.domain.ids import check_user_id


@dataclass(frozen=True, slots=True)
class Caller:
    user_id: str
    """'' where nobody is signed in."""
    admin: bool
    may_browse: bool = True
    """May list, show and delete sessions, and list tasks."""

    def subject(self, named: str | None) -> str:
        """The caller, or the user that an admin names: whose things are meant. Raises `CallerError`."""
        self.check_browsing()
        if named is None or named == self.user_id:
            return self.user_id
        self._check_admin()
        return check_user_id(named)

    def subjects(self, named: str | None) -> str | None:
        """Whose things are listed; None for everybody's. Raises `CallerError`."""
        if named is None and self.admin:
            self.check_browsing()
            return None
        return self.subject(named)

    def check_browsing(self) -> None:
        if not self.may_browse:
            raise ForbiddenError(
                "sessions are shown and deleted, and tasks listed, only for callers who sign in, for other"
                " machines can reach this server; set server.auth.tokens, or bind it to 127.0.0.1"
            )

    def _check_admin(self) -> None:
        if not self.admin:
            raise ForbiddenError(
                "only an admin may name another user; leave the user parameter out", field="user"
            )


class BearerTokens:
    """The callers of `server.auth.tokens`; without any, everybody is the one nameless user."""

    def __init__(self, tokens: Sequence[TokenSection], *, loopback: bool) -> None:
        # Found by hash, so that the time it takes says nothing about a token that is nearly right.
        self._callers = {
            _digest(section.token.get_secret_value().encode()): Caller(section.user, section.admin)
            for section in tokens
        }
        # Whoever reaches a loopback address is on this machine, as its operator is.
        self._nobody = Caller("", admin=loopback, may_browse=loopback)

    @property
    def required(self) -> bool:
        return bool(self._callers)

    def caller(self, authorization: bytes | None) -> Caller:
        """Raises `UnauthenticatedError`."""
        if not self._callers:
            return self._nobody
        scheme, _, token = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise UnauthenticatedError("a token is needed: send the header Authorization: Bearer <token>")
        digest = _digest(token.strip())
        for known, caller in self._callers.items():
            if hmac.compare_digest(known, digest):
                return caller
        raise UnauthenticatedError("the token is not one of this server's (server.auth.tokens)")


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
