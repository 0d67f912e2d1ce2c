"""The gRPC port: from an address to a clean end."""

import grpc

from hector.config import ServerTlsSection
from hector.server.entrance import Entrance
from hector.server.grpc.service import STALLED, handlers
from hector.server.listening import port_taken


class GrpcListener:
    """Serves both of A2A's services; which agent is meant, each call says."""

    def __init__(
        self, entrance: Entrance, *, body_limit: int, shared: bool = False, stalled: float = STALLED
    ) -> None:
        """`shared`: other processes listen on the same port, and the system gives each its connections."""
        self._server = grpc.aio.server(
            options=(
                ("grpc.so_reuseport", int(shared)),
                ("grpc.max_receive_message_length", body_limit),
                ("grpc.max_send_message_length", -1),
                # As often as HTTP's streams say that they are there; the default takes it for an attack.
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            )
        )
        self._server.add_generic_rpc_handlers(tuple(handlers(entrance, stalled=stalled)))

    async def start(self, host: str, port: int, tls: ServerTlsSection | None = None) -> int:
        """The port, which 0 leaves to the system. Raises `ConfigError` where it cannot be had."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if tls:
                port = self._server.add_secure_port(address, _credentials(tls))
            else:
                port = self._server.add_insecure_port(address)
        except RuntimeError as error:  # it was free a moment ago
            raise port_taken(host, port) from error
        await self._server.start()
        return port

    async def stop(self, grace: float) -> None:
        """Take no further call; those that run may go on for so many seconds."""
        await self._server.stop(grace)


def _credentials(tls: ServerTlsSection) -> grpc.ServerCredentials:
    """Of files that have been looked at."""
    pair = tls.key.read_bytes(), tls.cert.read_bytes()
    authorities = tls.client_ca.read_bytes() if tls.client_ca else None
    return grpc.ssl_server_credentials([pair], authorities, require_client_auth=bool(authorities))
