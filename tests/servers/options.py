"""What the supervisor and its clients agree on."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

ServerCertificate: TypeAlias = Literal["good", "expired", "none"]
ADMIN = "admin"
"""The superuser of each server."""
CERT_USER = "hector_cert"
"""Signs in with a client certificate, without a password."""


@dataclass(frozen=True, slots=True)
class Options:
    certificate: ServerCertificate = "good"
    """none: the server knows no TLS."""
    durable: bool = False
    """The durability that the server has by default. Otherwise what it has written outlives its own death,
    but not the machine's."""
    max_connections: int = 200
    anywhere: bool = False
    """It listens on all addresses of its network, for one that is a network of the tests' own."""
