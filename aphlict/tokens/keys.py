"""Token keys from PEM files, JWKS files and files with a secret. The type of a key determines its algorithm."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from jwt import PyJWK
from jwt.exceptions import PyJWTError
from msgspec import Struct

from aphlict.config.descriptions import invalid
from aphlict.config.files import Read, read_file
from aphlict.errors import ConfigError

NAME = "token="


def pop_token_from_url(url: str) -> tuple[str, str | None]:
    """Return a URL without the token in its query, and that token. Raises ValueError for an invalid URL."""
    parts = urlsplit(url)
    fields = parts.query.split("&")
    tokens = [unquote(each.removeprefix(NAME)) for each in fields if each.startswith(NAME)]
    rest = "&".join(each for each in fields if not each.startswith(NAME))
    return (urlunsplit(parts._replace(query=rest)), tokens[0]) if tokens else (url, None)


MIN_SECRET_BYTES = 32  # bytes (RFC 7518, 3.2)
MIN_RSA_BITS = 2048  # bits
BEGIN, PRIVATE = b"-----BEGIN ", b"PRIVATE KEY-----"
COSTS_IN_COMMANDS = {
    "HS256": 1,
    "RS256": 2,
    "ES256": 3,
    "EdDSA": 4,
}  # of one verification; a command is 20 µs
EXPECTED = "a public key (RSA, EC P-256 or Ed25519) in PEM, a JWKS, or a secret on one line"

# What json, PyJWT and cryptography raise for an invalid JWKS.
_NO_JWKS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
    OverflowError,
    PyJWTError,
    UnsupportedAlgorithm,
)

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | bytes


class Key(Struct, frozen=True):
    """A key and the one algorithm that it is used with (RFC 8725, 3.1).

    `signer` is the private key or secret, if known; `id` the `kid`, if any; `thumbprint` a hash that identifies it.
    """

    id: str | None
    algorithm: str
    verifier: PublicKey
    signer: Any
    thumbprint: bytes

    def __repr__(self) -> str:
        """Omit the secret."""
        return f"Key({self.id!r}, {self.algorithm!r})"

    @property
    def cost(self) -> int:
        """Return the cost of verifying a token with it, in commands."""
        return COSTS_IN_COMMANDS[self.algorithm]


class UnusableKey(ConfigError):
    """A key is not usable; `str()` is what was expected."""


def read_keys(key: str, path: str, read: Read = read_file) -> list[Key]:
    """Read the keys in the file of a configuration key. Raises ConfigError that names both."""
    try:
        content = read(path)
    except OSError as error:
        raise invalid(key, path, "a file that can be read", str(error.strerror)) from error
    try:
        return parse_keys(content, Path(path).stem)
    except UnusableKey as error:
        raise invalid(key, path, str(error)) from error


def read_signing_key(path: str) -> Key:
    """Read a private key or secret for signing; it has no ID. Raises ConfigError."""
    try:
        content = Path(path).read_bytes()
        if BEGIN not in content:
            return _make_key(None, _parse_secret(content))
        private = load_pem_private_key(content, password=None)
        return _make_key(None, _supported(private.public_key()), private)
    except OSError as error:
        raise invalid("--key", path, "a file that can be read", str(error.strerror)) from error
    except UnusableKey as error:
        raise invalid("--key", path, str(error)) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise invalid("--key", path, "a private key in PEM, without a passphrase, or a secret") from error


def parse_keys(content: bytes, name: str) -> list[Key]:
    """Parse the content of a key file; its name is the ID of a key without one. Raises UnusableKey."""
    if content.lstrip()[:1] == b"{":
        return _parse_jwks(content)
    if BEGIN in content:
        return [_make_key(name, _parse_pem(content))]
    return [_make_key(name, _parse_secret(content))]


def _parse_secret(content: bytes) -> bytes:
    secret = content.strip()
    if not secret or b"\n" in secret or b"\0" in secret:
        raise UnusableKey(EXPECTED)
    return secret


def _parse_pem(content: bytes) -> PublicKey:
    if PRIVATE in content:
        raise UnusableKey(
            "the public key only (openssl pkey -in FILE -pubout); the private key stays with the signer"
        )
    try:
        return _supported(load_pem_public_key(content))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableKey(EXPECTED) from error


def _parse_jwks(content: bytes) -> list[Key]:
    """Return the keys of a JWKS or JWK that can verify tokens. Keys for other purposes are skipped."""
    try:
        value = json.loads(content)
        entries = value.get("keys", [value])
        keys = [_parse_jwk(each) for each in entries if _is_usable(each)]
    except _NO_JWKS as error:
        raise UnusableKey(f"{EXPECTED} (it is not a JWKS: {error or type(error).__name__})") from error
    if not keys:
        raise UnusableKey("a JWKS with a key for HS256, RS256, ES256 or EdDSA")
    return keys


def _is_usable(entry: dict[str, Any]) -> bool:
    curve = entry.get("crv") in {"RSA": (None,), "oct": (None,), "EC": ("P-256",), "OKP": ("Ed25519",)}.get(
        entry.get("kty", ""), ()
    )
    return curve and entry.get("use", "sig") == "sig" and entry.get("alg", "HS256") in COSTS_IN_COMMANDS


def _parse_jwk(entry: dict[str, Any]) -> Key:
    if "d" in entry:
        raise UnusableKey("a JWKS with public keys only; this one has a private key")
    # The type of the key decides, not the `alg` beside it.
    algorithm = {"RSA": "RS256", "oct": "HS256", "EC": "ES256", "OKP": "EdDSA"}[entry["kty"]]
    if entry.get("alg", algorithm) != algorithm:
        raise UnusableKey(f"a JWKS whose key of type {entry['kty']} is for {algorithm}")
    id = entry.get("kid")
    if id is not None and not isinstance(id, str):
        raise UnusableKey("a JWKS whose 'kid's are strings")
    return _make_key(id, _supported(PyJWK(entry, algorithm).key))


def _supported(key: object) -> PublicKey:
    if isinstance(key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | bytes):
        return key
    raise UnusableKey(EXPECTED)


def _make_key(id: str | None, verifier: PublicKey, signer: object = None) -> Key:
    algorithm = _algorithm_for(verifier)
    if isinstance(verifier, bytes):
        return Key(id, algorithm, verifier, verifier, sha256(b"secret " + verifier).digest())
    data = verifier.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Key(id, algorithm, verifier, signer, sha256(data).digest())


def _algorithm_for(verifier: PublicKey) -> str:
    match verifier:
        case bytes():
            if len(verifier) < MIN_SECRET_BYTES:
                raise UnusableKey(f"a secret of at least {MIN_SECRET_BYTES} bytes (openssl rand -hex 32)")
            return "HS256"
        case RSAPublicKey():
            if verifier.key_size < MIN_RSA_BITS:
                raise UnusableKey(
                    f"an RSA key of at least {MIN_RSA_BITS} bits; this one has {verifier.key_size}"
                )
            return "RS256"
        case Ed25519PublicKey():
            return "EdDSA"
    if not isinstance(verifier.curve, SECP256R1):
        raise UnusableKey(f"an EC key of the curve P-256; this one is {verifier.curve.name}")
    return "ES256"
