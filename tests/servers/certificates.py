"""Certificates that are made for one run of tests and thrown away with it."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.servers.database import TlsFiles
from tests.servers.options import CERT_USER

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """What a server is given."""

    ca: Path
    """Signs the certificates of clients."""
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Certificates:
    client: TlsFiles
    server: ServerFiles
    expired: ServerFiles
    """As `server`, but for its dates."""


@dataclass(frozen=True, slots=True)
class _Pair:
    key: ec.EllipticCurvePrivateKey
    cert: x509.Certificate


def make_certificates(folder: Path) -> Certificates:
    authority = _authority("Test CA")
    now = dt.datetime.now(dt.UTC)
    server = _signed("localhost", authority, until=now + _DAY, server=True)
    expired = _signed("localhost", authority, until=now - _DAY, server=True)
    client = _signed(CERT_USER, authority, until=now + _DAY, server=False)
    ca = _write(folder / "ca.pem", _cert(authority))
    return Certificates(
        TlsFiles(
            ca=ca,
            cert=_write(folder / "client.pem", _cert(client)),
            key=_write(folder / "client.key", _key(client)),
            cert_with_key=_write(folder / "client-and-key.pem", _cert(client) + _key(client)),
            other_ca=_write(folder / "other-ca.pem", _cert(_authority("Other CA"))),
        ),
        server=ServerFiles(
            ca, _write(folder / "server.pem", _cert(server)), _write(folder / "server.key", _key(server))
        ),
        expired=ServerFiles(
            ca, _write(folder / "expired.pem", _cert(expired)), _write(folder / "expired.key", _key(expired))
        ),
    )


def _authority(name: str) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    builder = (
        _builder(name, name, key, now - _DAY, now + _DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
    )
    return _Pair(key, builder.sign(key, hashes.SHA256()))


def _signed(name: str, authority: _Pair, *, until: dt.datetime, server: bool) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    role = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(name, str(issuer), key, until - 2 * _DAY, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([role]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
    )
    if server:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _Pair(key, builder.sign(authority.key, hashes.SHA256()))


def _builder(
    name: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    since: dt.datetime,
    until: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _cert(pair: _Pair) -> bytes:
    return pair.cert.public_bytes(serialization.Encoding.PEM)


def _key(pair: _Pair) -> bytes:
    return pair.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, pem: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(pem)
    return path
