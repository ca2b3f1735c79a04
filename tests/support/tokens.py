"""Keys and tokens, made as backends make them: with PyJWT alone, or by hand where PyJWT refuses."""

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

LEEWAY = 5.0  # seconds by which a server lets the clocks of backends differ
ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")
Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Pair(NamedTuple):
    """What signs, and the contents of the files of both halves; of a secret the halves are the same."""

    algorithm: str
    signer: Any
    private: bytes
    public: bytes

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half, or the secret, as an entry of a JWKS."""
        to_jwk: dict[str, Any] = {
            "HS256": HMACAlgorithm,
            "RS256": RSAAlgorithm,
            "ES256": ECAlgorithm,
            "EdDSA": OKPAlgorithm,
        }
        half = self.signer if self.algorithm == "HS256" else self.signer.public_key()
        found: dict[str, Any] = json.loads(to_jwk[self.algorithm].to_jwk(half))
        return found


def pair(algorithm: str, number: int = 0) -> Pair:
    """A pair of keys; another for each number."""
    return _pair(algorithm, number)


@cache
def _pair(algorithm: str, number: int) -> Pair:
    if algorithm == "HS256":
        secret = hashlib.sha256(f"secret {number}".encode()).hexdigest().encode()
        return Pair(algorithm, secret, secret + b"\n", secret + b"\n")
    return of_private(algorithm, _make(algorithm))


def of_private(algorithm: str, key: Private) -> Pair:
    """The pair of a private key."""
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(
        algorithm,
        key,
        private,
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


def _make(algorithm: str) -> Private:
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def token(*channels: str, by: Pair | None = None, kid: str | None = None, **claims: Any) -> str:
    """A token for these channels, good for an hour unless `exp` says otherwise; a claim that is None is left out."""
    signed = by or pair("HS256")
    all_claims = {"channels": list(channels), "exp": int(time.time()) + 3600, **claims}
    said = {name: value for name, value in all_claims.items() if value is not None}
    return jwt.encode(said, signed.signer, signed.algorithm, headers={"kid": kid} if kid else None)


def handmade(header: object, claims: object, secret: bytes | None = None) -> str:
    """A token with any header at all, signed with HMAC, or not signed."""
    head, body = (
        _segment(each if isinstance(each, bytes) else json.dumps(each).encode()) for each in (header, claims)
    )
    signature = b"" if secret is None else hmac.new(secret, f"{head}.{body}".encode(), "sha256").digest()
    return f"{head}.{body}.{_segment(signature)}"


def _segment(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def key_file(folder: Path, content: bytes | None = None, name: str = "main.key") -> str:
    """A key file (of the first secret unless another content is given), as a configuration names it."""
    path = folder / name
    path.write_bytes(pair("HS256").public if content is None else content)
    return str(path)


def jwks(*entries: dict[str, Any]) -> bytes:
    """A JWKS file."""
    return json.dumps({"keys": entries}).encode()
