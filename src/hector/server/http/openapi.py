"""GET /openapi.json."""

import asyncio
from collections.abc import Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hector.server.http.exchange import exchange_of
from hector.server.http.keeping import kept, now
from hector.server.http.responses import to_json


class OpenApi:
    """Made when somebody asks for it first."""

    def __init__(
        self, routes: Callable[[], Iterable[Route]], *, base_url: str | None, signs_in: bool
    ) -> None:
        self._routes = routes
        self._base_url, self._signs_in = base_url, signs_in
        self._since = now()
        self._made: bytes | None = None

    async def show(self, request: Request) -> Response:
        if self._made is None:
            # What it imports takes a tenth of a second, for which streams are not to stand still.
            self._made = await asyncio.to_thread(self._make)
        return kept(
            self._made,
            exchange_of(request).headers,
            since=self._since,
            keeping="public, max-age=60",
            media_type="application/json",
        )

    def _make(self) -> bytes:
        from hector.server.openapi.document import document  # noqa: PLC0415 - all of a2a-sdk's types

        return to_json(document(self._routes(), base_url=self._base_url, signs_in=self._signs_in))
