"""TLS of the server's own ports."""

import ssl
from pathlib import Path
from typing import NoReturn

from hector.config import ServerTlsSection
from hector.domain.errors import ConfigError, Problem


class _PassphraseWantedError(Exception):
    pass


def server_context(tls: ServerTlsSection) -> ssl.SSLContext:
    """From TLS 1.2 on; with `client_ca` clients must show a certificate. Raises `ConfigError`."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_own(made, tls.cert, tls.key)
    if tls.client_ca:
        made.verify_mode = ssl.CERT_REQUIRED
        try:
            made.load_verify_locations(cafile=tls.client_ca)
        except OSError as error:
            raise _wrong("client_ca", tls.client_ca, error) from None
    return made


def _load_own(made: ssl.SSLContext, cert: Path, key: Path) -> None:
    def refuse() -> NoReturn:
        raise _PassphraseWantedError  # OpenSSL would ask at the terminal

    try:
        key_text = key.read_bytes()
    except OSError as error:
        raise _wrong("key", key, error) from None
    try:
        made.load_cert_chain(cert, key, password=refuse)
    except _PassphraseWantedError:
        text = f"the key in {key} is encrypted; wanted one without a passphrase"
        raise ConfigError([Problem("server.tls.key", text)]) from None
    except ssl.SSLError as error:
        mismatch = error.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}
        if mismatch:
            text = f"the key in {key} does not belong to the certificate in {cert}"
            raise ConfigError([Problem("server.tls.key", text)]) from None
        name, path = ("cert", cert) if b"PRIVATE KEY" in key_text else ("key", key)
        raise _wrong(name, path, error) from None
    except OSError as error:
        raise _wrong("cert", cert, error) from None


def _wrong(name: str, path: Path, error: OSError) -> ConfigError:
    if isinstance(error, ssl.SSLError):
        text = f"{path} holds no {'private key' if name == 'key' else 'certificate'} in PEM"
    else:
        text = f"{path} cannot be read: {(error.strerror or str(error)).lower()}"
    return ConfigError([Problem(f"server.tls.{name}", text)])
