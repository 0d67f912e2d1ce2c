"""TLS to a database server: libpq's modes as an `ssl.SSLContext`, and what is wrong with its files."""

import functools
import ssl
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

from hector.domain.errors import StoreOpenError
from hector.storage.settings import Tls

_Key: TypeAlias = Literal["ssl_cert", "ssl_key", "ssl_root_cert"]
_Stamp: TypeAlias = tuple[int, int, int]

# The last where one of them is RSA and the other is not: OpenSSL has a place for each kind.
_OTHER_KEY = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})


class _PassphraseWantedError(Exception):
    pass


def context(tls: Tls, store: str) -> ssl.SSLContext | None:
    """None if the mode is `disable`. Raises `StoreOpenError`, which names the key at fault.

    `prefer` checks nothing of the server; that it may do without TLS is for the caller to act upon.
    """
    if tls.mode == "disable":
        return None
    paths: dict[_Key, Path | None] = {
        "ssl_cert": tls.cert,
        "ssl_key": tls.key,
        "ssl_root_cert": tls.root_cert,
    }
    return _made(tls, store, tuple(_stamp(path, key, store) for key, path in paths.items() if path))


def _checks_certificate(tls: Tls) -> bool:
    """The server's certificate must be signed by somebody who is trusted."""
    return tls.mode in ("verify-ca", "verify-full") or (tls.mode == "require" and tls.root_cert is not None)


# To read what a system trusts takes milliseconds, which each connection would cost. A renewed file has
# another stamp, so it is used without a restart.
@functools.lru_cache(maxsize=16)
def _made(tls: Tls, store: str, stamps: tuple[_Stamp, ...]) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.check_hostname = tls.mode == "verify-full"
    made.verify_mode = ssl.CERT_REQUIRED if _checks_certificate(tls) else ssl.CERT_NONE
    if tls.root_cert:
        _load_root(made, tls.root_cert, store)
    elif _checks_certificate(tls):
        made.load_default_certs()
    if tls.cert:
        _load_client(made, tls.cert, tls.key, store)
    elif tls.key:
        raise StoreOpenError(
            store, "ssl_key: there is no ssl_cert that it belongs to; set ssl_cert, or remove ssl_key"
        )
    return made


def _load_root(made: ssl.SSLContext, path: Path, store: str) -> None:
    _check_certificate(path, "ssl_root_cert", store)
    made.load_verify_locations(path)


def _load_client(made: ssl.SSLContext, cert: Path, key: Path | None, store: str) -> None:
    _check_certificate(cert, "ssl_cert", store)
    if b"PRIVATE KEY-----" not in _read(key or cert, "ssl_key", store):
        text = f"{key} holds no private key in PEM" if key else f"not set, and ssl_cert ({cert}) holds no key"
        raise StoreOpenError(store, f"ssl_key: {text}")
    try:
        made.load_cert_chain(cert, key, password=_refuse)
    except _PassphraseWantedError:
        raise StoreOpenError(
            store,
            f"ssl_key: {key or cert} is encrypted, and nobody is there to be asked for its passphrase;"
            f" `openssl pkey -in {key or cert} -out FILE` decrypts it, into a file for hector's user alone",
        ) from None
    except ssl.SSLError as error:
        if error.reason in _OTHER_KEY:
            why = f"{key or cert} does not belong to the certificate in {cert}"
        else:
            why = f"{key or cert} cannot be read as a private key in PEM ({_reason(error)})"
        raise StoreOpenError(store, f"ssl_key: {why}") from error


def _refuse() -> NoReturn:
    # Without this OpenSSL asks at the terminal, and waits.
    raise _PassphraseWantedError


def _check_certificate(path: Path, key: _Key, store: str) -> None:
    found = _read(path, key, store)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        der = found.startswith(b"\x30\x82")
        hint = f"; convert it with `openssl x509 -inform der -in {path}`" if der else f" ({_reason(error)})"
        raise StoreOpenError(store, f"{key}: {path} holds no certificate in PEM{hint}") from error


def _read(path: Path, key: _Key, store: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, key, store, error) from error


def _stamp(path: Path, key: _Key, store: str) -> _Stamp:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, key, store, error) from error
    return found.st_ino, found.st_size, found.st_mtime_ns


def _unreadable(path: Path, key: _Key, store: str, error: OSError) -> StoreOpenError:
    match error:
        case FileNotFoundError():
            why = "does not exist"
        case PermissionError():
            why = "is not readable for this user"
        case IsADirectoryError():
            why = "is a directory; name a file in it"
        case _:
            why = f"cannot be read: {error.strerror or type(error).__name__}"
    return StoreOpenError(store, f"{key}: {path} {why}")


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's name of it, as words."""
    return (error.reason or type(error).__name__).replace("_", " ").lower()
