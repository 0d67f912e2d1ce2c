"""What a driver for a database server is told: where it is, how to sign in, how many connections to keep."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

SslMode: TypeAlias = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]


@dataclass(frozen=True, slots=True)
class Tls:
    """libpq's modes, for both servers.

    `require` checks the chain, as `verify-ca` does, if a root certificate is named.
    """

    mode: SslMode = "prefer"
    cert: Path | None = None
    key: Path | None = None
    """None: it stands in `cert`, too."""
    root_cert: Path | None = None
    """None: the certificates that the system trusts."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a PostgreSQL or MySQL server is reached and used."""

    store: str
    """The session store's name, for errors and logs."""
    host: str
    """A name, an address, or (an absolute path) the folder or file of a Unix socket."""
    port: int
    user: str
    database: str
    password: str = field(default="", repr=False)
    tls: Tls = Tls()
    schema: str | None = None
    """PostgreSQL's; None to choose as `schema.choose_schema` does."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Settings of the server's session, by name, set on each connection."""
    max_conns: int = 20
    """Of the pool. One more, which beats, is beside it."""
    max_idle: int = 5
    """Connections that stay open while nobody uses them."""
    lifetime: float = 3600.0
    """Seconds after which a connection is replaced; 0 for never."""
    connect_timeout: float = 10.0
    """Seconds in which a caller has a connection, or an error."""
    statement_timeout: float = 30.0
    """Seconds that the server works on one statement before it gives up."""
    auto_migrate: bool = True
    """Create and migrate the schema at a start; otherwise a start that finds an old one ends."""
