"""A client's connection."""

from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CUT = "hector.cut"
"""Where a request's scope holds what ends its connection at once, whatever waits to be sent."""


class Connection(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)[CUT] = self.transport.abort
