import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificate

from hector.domain.errors import StoreOpenError
from hector.storage.server.tls import context
from hector.storage.settings import SslMode, Tls
from tests.servers.certificates import make_certificates
from tests.servers.database import TlsFiles


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return make_certificates(tmp_path_factory.mktemp("certificates")).client


def made(tls: Tls) -> ssl.SSLContext:
    found = context(tls, "main")
    assert found
    return found


# --- modes


def test_disable_is_no_tls_whatever_else_is_set(files: TlsFiles) -> None:
    assert context(Tls("disable", cert=files.cert, root_cert=files.ca), "main") is None


@pytest.mark.parametrize(
    ("mode", "with_root", "verifies", "checks_host"),
    [
        ("prefer", False, False, False),
        ("prefer", True, False, False),
        ("require", False, False, False),
        ("require", True, True, False),
        ("verify-ca", False, True, False),
        ("verify-ca", True, True, False),
        ("verify-full", False, True, True),
        ("verify-full", True, True, True),
    ],
)
def test_a_mode_means_what_it_means_to_libpq(
    mode: SslMode, with_root: bool, verifies: bool, checks_host: bool, files: TlsFiles
) -> None:
    found = made(Tls(mode, root_cert=files.ca if with_root else None))
    assert found.verify_mode == (ssl.CERT_REQUIRED if verifies else ssl.CERT_NONE)
    assert found.check_hostname is checks_host


def test_a_root_certificate_is_the_only_one_that_is_trusted(files: TlsFiles) -> None:
    assert made(Tls("verify-ca", root_cert=files.ca)).cert_store_stats()["x509_ca"] == 1


def test_without_one_the_certificates_of_the_system_are_trusted(
    files: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    monkeypatch.setenv("SSL_CERT_DIR", "")
    found = context(Tls("verify-full"), "a store for which none was made before")
    assert found
    assert len(found.get_ca_certs()) == 1


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
def test_nothing_older_than_tls_1_2_is_spoken(mode: SslMode) -> None:
    assert made(Tls(mode)).minimum_version == ssl.TLSVersion.TLSv1_2


# --- a client's certificate


@contextmanager
def conversation(client: ssl.SSLContext, files: TlsFiles) -> Iterator[ssl.SSLObject]:
    """With a server in memory that asks for a certificate; gives the server's end of it."""
    folder = files.ca.parent
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(folder / "server.pem", folder / "server.key")
    accepting.load_verify_locations(files.ca)
    accepting.verify_mode = ssl.CERT_REQUIRED
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = accepting.wrap_bio(up, down, server_side=True)
    ends = [client.wrap_bio(down, up, server_hostname="localhost"), server]
    while ends:
        for end in tuple(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
    yield server


@pytest.mark.parametrize("together", [False, True])
def test_a_client_shows_its_certificate(together: bool, files: TlsFiles) -> None:
    tls = Tls("verify-full", cert=files.cert, key=files.key, root_cert=files.ca)
    if together:
        tls = replace(tls, cert=files.cert_with_key, key=None)
    with conversation(made(tls), files) as server:
        shown = server.getpeercert(binary_form=True)
    assert shown == load_pem_x509_certificate(files.cert.read_bytes()).public_bytes(Encoding.DER)


# --- faults


def garbage(path: Path, files: TlsFiles) -> Path:
    path.write_text("-----BEGIN CERTIFICATE-----\nnot base64\n-----BEGIN PRIVATE KEY-----\nneither\n")
    return path


def der(path: Path, files: TlsFiles) -> Path:
    path.write_bytes(load_pem_x509_certificate(files.cert.read_bytes()).public_bytes(Encoding.DER))
    return path


def encrypted(path: Path, files: TlsFiles) -> Path:
    key = load_pem_private_key(files.key.read_bytes(), None)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    return path


def encrypted_in_the_old_way(path: Path, files: TlsFiles) -> Path:
    key = load_pem_private_key(files.key.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret"))
    )
    return path


def of_another_kind(path: Path, files: TlsFiles) -> Path:
    key = rsa.generate_private_key(65537, 2048)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def of_the_server(path: Path, files: TlsFiles) -> Path:
    return files.ca.parent / "server.key"


def the_certificate(path: Path, files: TlsFiles) -> Path:
    return files.cert


def the_key(path: Path, files: TlsFiles) -> Path:
    return files.key


def missing(path: Path, files: TlsFiles) -> Path:
    return path


def folder(path: Path, files: TlsFiles) -> Path:
    path.mkdir()
    return path


def empty(path: Path, files: TlsFiles) -> Path:
    path.touch()
    return path


def below_a_file(path: Path, files: TlsFiles) -> Path:
    path.touch()
    return path / "file"


CERTIFICATE_FAULTS = [
    (missing, "PATH does not exist"),
    (folder, "PATH is a directory; name a file in it"),
    (below_a_file, "PATH cannot be read: Not a directory"),
    (empty, "PATH holds no certificate in PEM (no certificate or crl found)"),
    (the_key, "PATH holds no certificate in PEM (no certificate or crl found)"),
    (der, "PATH holds no certificate in PEM; convert it with `openssl x509 -inform der -in PATH`"),
]
KEY_FAULTS = [
    (missing, "PATH does not exist"),
    (folder, "PATH is a directory; name a file in it"),
    (empty, "PATH holds no private key in PEM"),
    (the_certificate, "PATH holds no private key in PEM"),
    (garbage, "PATH cannot be read as a private key in PEM ("),
    (of_the_server, "PATH does not belong to the certificate in CERT"),
    (of_another_kind, "PATH does not belong to the certificate in CERT"),
    (
        encrypted,
        "PATH is encrypted, and nobody is there to be asked for its passphrase; `openssl pkey -in PATH",
    ),
    (encrypted_in_the_old_way, "PATH is encrypted, and nobody is there"),
]
Make = Callable[[Path, TlsFiles], Path]


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-full"])
@pytest.mark.parametrize(("make", "why"), CERTIFICATE_FAULTS)
@pytest.mark.parametrize("key", ["ssl_root_cert", "ssl_cert"])
def test_a_bad_certificate_is_told_with_its_key(
    key: str, make: Make, why: str, mode: SslMode, files: TlsFiles, tmp_path: Path
) -> None:
    path = make(tmp_path / "file", files)
    tls = Tls(mode, root_cert=path) if key == "ssl_root_cert" else Tls(mode, cert=path, key=files.key)
    with pytest.raises(StoreOpenError) as raised:
        context(tls, "main")
    assert str(raised.value).startswith(f"failed to connect to session store 'main': {key}: ")
    assert why.replace("PATH", str(path)) in str(raised.value)


@pytest.mark.parametrize(("make", "why"), KEY_FAULTS)
def test_a_bad_key_is_told_with_its_key(make: Make, why: str, files: TlsFiles, tmp_path: Path) -> None:
    path = make(tmp_path / "file", files)
    with pytest.raises(StoreOpenError) as raised:
        context(Tls("require", cert=files.cert, key=path), "main")
    wanted = "ssl_key: " + why.replace("PATH", str(path)).replace("CERT", str(files.cert))
    assert wanted in str(raised.value)


def test_a_key_that_is_neither_named_nor_in_the_certificate_is_missed(files: TlsFiles) -> None:
    with pytest.raises(StoreOpenError, match=r"ssl_key: not set, and ssl_cert \(.*client.pem\) holds no key"):
        context(Tls("require", cert=files.cert), "main")


def test_a_key_alone_is_an_error(files: TlsFiles) -> None:
    with pytest.raises(StoreOpenError, match="ssl_key: there is no ssl_cert that it belongs to"):
        context(Tls("require", key=files.key), "main")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_for_another_user_is_told(files: TlsFiles, tmp_path: Path) -> None:
    path = tmp_path / "root"
    path.write_bytes(files.ca.read_bytes())
    path.chmod(0)
    with as_nobody(), pytest.raises(StoreOpenError, match=r"ssl_root_cert: .* is not readable for this user"):
        context(Tls("require", root_cert=path), "main")


# --- files that change


def test_a_renewed_file_is_read_again_and_an_old_one_is_not(files: TlsFiles, tmp_path: Path) -> None:
    path = tmp_path / "root"
    path.write_bytes(files.ca.read_bytes())
    tls = Tls("verify-ca", root_cert=path)
    first = made(tls)
    assert made(tls) is first
    path.write_bytes(files.ca.read_bytes() + files.other_ca.read_bytes())
    assert len(made(tls).get_ca_certs()) == 2
