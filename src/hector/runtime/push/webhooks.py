"""Calling webhooks: one POST, to an address that was looked at, within bounds of time and size.

On httpcore2, the transport below pydantic-ai's and OpenAI's clients, and so there already. It does no more
than a request: no redirects, no proxies of the environment, no cookies. And it takes the connection from us,
so that the name of a host is resolved once, and what was found to be public is what is connected to.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from socket import gaierror
from ssl import SSLError
from typing import Any

import httpcore2

from hector.runtime.push.targets import TargetError, Targets

_CONNECTIONS = 64
_NEXT_AFTER = 3.0
"""Seconds, until the next address of a host is tried."""
_KEEP_ALIVE = 5.0
"""Seconds: a turn's notifications often follow one another closely."""
_LARGEST_ANSWER = 64 * 1024
"""Bytes that are read, to use the connection again; nobody looks at them."""
_REST_WITHIN = 1.0
"""Seconds, for the rest of an answer whose status is known."""
_LONGEST_RETRY_AFTER = 3600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a webhook, or why there is none."""

    status: int | None
    why: str = ""
    """For the log; '' where the status says it."""
    retry_after: float = 0.0
    """Seconds that the receiver asked for."""

    @property
    def taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """The receiver wants nothing of the kind any more."""
        return self.status == 410


class Webhooks:
    """Belongs to one event loop."""

    def __init__(self, targets: Targets, *, timeout: float) -> None:
        self._targets, self._timeout = targets, timeout
        self._pool = httpcore2.AsyncConnectionPool(
            # Made once: to read the system's authorities takes longer than to connect.
            httpcore2.default_ssl_context(),
            max_connections=_CONNECTIONS,
            keepalive_expiry=_KEEP_ALIVE,
            network_backend=_Checked(targets),
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._post(url, headers, body)
        except TargetError as error:
            return Answer(None, f"its URL {error}")
        except (TimeoutError, httpcore2.TimeoutException):
            return Answer(None, f"no answer within {self._timeout:g} s")
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
            # Of no more than its kind: a certificate's fault would quote what the receiver made up.
            return Answer(None, _kind(error))

    async def close(self) -> None:
        await self._pool.aclose()

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        target = self._targets.parse(url)
        sent = {"host": target.netloc, **headers, "content-length": str(len(body))}
        async with self._pool.stream(
            "POST",
            httpcore2.URL(
                scheme=target.scheme.encode(),
                host=target.host.encode(),
                port=target.port,
                target=target.path.encode(),
            ),
            headers=[(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
            content=body,
        ) as response:
            with contextlib.suppress(TimeoutError, httpcore2.NetworkError, httpcore2.ProtocolError):
                async with asyncio.timeout(_REST_WITHIN):
                    await _read_rest(response)
            return Answer(response.status, retry_after=_retry_after(response.headers))


async def _read_rest(response: httpcore2.Response) -> None:
    read = 0
    async for chunk in response.aiter_stream():
        read += len(chunk)
        if read > _LARGEST_ANSWER:
            return


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> float:
    """Seconds; a date counts as nothing, for it is by the receiver's clock."""
    for name, value in headers:
        if name.lower() == b"retry-after" and value.isdigit() and len(value) < 10:
            return min(float(value), _LONGEST_RETRY_AFTER)
    return 0.0


def _kind(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SSLError | gaierror):
            return type(cause).__name__
        if isinstance(cause, OSError) and cause.errno is not None:
            return os.strerror(cause.errno).lower()
        # Its pool cuts the chain; what was raised first is still the argument of what was made of it.
        inner = cause.args[0] if cause.args else None
        cause = cause.__cause__ or (inner if isinstance(inner, BaseException) else None)
    return type(error).__name__


class _Checked(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that the targets admit, and to none by its name."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await self._targets.addresses(host, port)
        for address in addresses[:-1]:
            # Of a host with addresses of IPv4 and IPv6, this machine may reach one kind alone.
            with contextlib.suppress(httpcore2.NetworkError, httpcore2.TimeoutException):
                return await self._network.connect_tcp(
                    address, port, _NEXT_AFTER, local_address, socket_options
                )
        return await self._network.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
