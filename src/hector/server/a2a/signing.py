"""Signatures of agent cards: JSON Web Signatures over their canonical JSON (RFC 7515, RFC 8785)."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hector.config import ServerSection
from hector.domain.errors import ConfigError, Problem
from hector.domain.messages import JsonValue
from hector.server.a2a.wire import Json, filled

if TYPE_CHECKING:
    from jwt.api_jws import PyJWS

_MODULES = ("cryptography", "jwt", "rfc8785")
_WANTED = "wanted a private key in PEM without a password: P-256, Ed25519, or RSA of 2048 bits or more"
_LEAST_RSA = 2048


@dataclass(frozen=True, slots=True)
class CardSigner:
    """Signs with one key; who checks finds it by `kid`, or at `jku`."""

    key: Any
    algorithm: str
    kid: str
    jku: str | None = None

    def sign(self, forms: Sequence[Json]) -> list[JsonValue]:
        """A signature over each of the forms, which differ in what readers keep of a card."""
        import rfc8785  # noqa: PLC0415 - for who signs alone
        from jwt.api_jws import PyJWS  # noqa: PLC0415 - the same

        signer = PyJWS()
        if self.algorithm == "ES256":
            _always_sign_alike(signer)
        header = filled({"typ": "JOSE", "kid": self.kid}, jku=self.jku)
        signatures: list[JsonValue] = []
        for payload in dict.fromkeys(map(rfc8785.dumps, forms)):
            token = signer.encode(payload, self.key, self.algorithm, header)
            protected, _, signature = token.split(".")
            signatures.append({"protected": protected, "signature": signature})
        return signatures


def _always_sign_alike(signer: "PyJWS") -> None:
    """By RFC 6979: otherwise a card would be another one in each process, for who keeps it by its ETag."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - for who signs alone
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - the same
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - the same
    from jwt.algorithms import ECAlgorithm  # noqa: PLC0415 - the same
    from jwt.utils import der_to_raw_signature  # noqa: PLC0415 - the same

    try:
        way = ec.ECDSA(SHA256(), deterministic_signing=True)
    except UnsupportedAlgorithm:  # an OpenSSL before 3.2
        return

    class Deterministic(ECAlgorithm):
        def sign(self, msg: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
            return der_to_raw_signature(key.sign(msg, way), key.curve)

    signer.unregister_algorithm("ES256")
    signer.register_algorithm("ES256", Deterministic(ECAlgorithm.SHA256))


def open_signer(server: ServerSection) -> CardSigner | None:
    """Of `server.card_key`; None if there is none. Raises `ConfigError`."""
    if server.card_key is None:
        return None
    key, algorithm = _read(server.card_key)
    return CardSigner(key, algorithm, server.card_key_id or _thumbprint(key, algorithm), server.card_key_url)


def _read(path: Path) -> tuple[Any, str]:
    if not all(find_spec(module) for module in _MODULES):
        raise _cannot("signing needs packages that are not installed: pip install 'hector[signing]'")
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - for who signs alone
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - the same

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise _cannot(f"cannot be read: {(error.strerror or '').lower()}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Not chained: its text may hold some of the file.
        raise _cannot(f"{_WANTED}; openssl genpkey -algorithm ed25519 makes one") from None
    algorithm = _algorithm(key)
    if algorithm is None:
        raise _cannot(f"{_WANTED}; found another kind")
    return key, algorithm


def _algorithm(key: object) -> str | None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415 - for who signs alone

    match key:
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            return "ES256"
        case ed25519.Ed25519PrivateKey():
            return "EdDSA"
        case rsa.RSAPrivateKey(key_size=int(bits)) if bits >= _LEAST_RSA:
            return "RS256"
        case _:
            return None


def _thumbprint(key: Any, algorithm: str) -> str:
    """RFC 7638's name of a key."""
    from jwt.algorithms import get_default_algorithms  # noqa: PLC0415 - for who signs alone

    public = json.loads(get_default_algorithms()[algorithm].to_jwk(key.public_key()))
    required = {name: public[name] for name in ("crv", "e", "kty", "n", "x", "y") if name in public}
    canonical = json.dumps(required, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()


def _cannot(text: str) -> ConfigError:
    return ConfigError([Problem("server.card_key", text)])
