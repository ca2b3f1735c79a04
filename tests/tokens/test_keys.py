"""Key files: what is read out of them, and the sentences about those that cannot be used."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from aphlict.errors import ConfigError
from aphlict.tokens.grant import make_token
from aphlict.tokens.keys import Key, read_keys, read_signing_key
from tests.support.tokens import ALGORITHMS, jwks, key_file, of_private, pair, token


def read(folder: Path, content: bytes, name: str = "main.key") -> list[Key]:
    return read_keys("auth.keys[0]", key_file(folder, content, name))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_file_says_by_its_content_what_it_is(algorithm: str, tmp_path: Path) -> None:
    [key] = read(tmp_path, pair(algorithm).public, "2026-01.anything")
    assert (key.id, key.algorithm) == ("2026-01", algorithm)
    [same] = read(tmp_path, jwks(pair(algorithm).jwk))
    assert (same.id, same.algorithm, same.thumbprint) == (None, algorithm, key.thumbprint)
    [alone] = read(tmp_path, json.dumps(pair(algorithm).jwk).encode())
    assert alone == same


def test_a_jwks_may_have_keys_for_other_purposes(tmp_path: Path) -> None:
    usable = pair("ES256").jwk
    others = (
        {**pair("RS256").jwk, "use": "enc"},
        {**pair("RS256").jwk, "alg": "PS256"},
        {"kty": "new", "x": "AAAA"},
        {"kty": "EC", "crv": "P-384", "x": "AAAA", "y": "AAAA"},
        {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
    )
    [key] = read(tmp_path, jwks(*others, {**usable, "use": "sig", "alg": "ES256", "kid": "good"}))
    assert key.id == "good"


def public(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


KIND = r"a public key \(RSA, EC P-256 or Ed25519\) in PEM, a JWKS, or a secret on one line"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", KIND),
        (b"\n", KIND),
        (b"two\nlines of a secret that is long enough\n", KIND),
        (b"\x00" * 64, KIND),
        (b"short\n", "a secret of at least 32 bytes"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", KIND),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", KIND),
        (pair("ES256").private, "the public key only"),
        (
            public(ec.generate_private_key(ec.SECP384R1())),
            "an EC key of the curve P-256; this one is secp384r1",
        ),
        (public(ed448.Ed448PrivateKey.generate()), KIND),
        (
            public(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
            "an RSA key of at least 2048 bits; this one has 1024",
        ),
        (b"{", "it is not a JWKS"),
        (b'{"keys": 7}', "it is not a JWKS"),
        (b'{"keys": [7]}', "it is not a JWKS"),
        (b'{"keys": [[]]}', "it is not a JWKS"),
        (b'{"keys": [{"kty": []}]}', "it is not a JWKS"),
        (b'{"keys": [{"kty": "oct"}]}', "it is not a JWKS"),
        (b'{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AA"}]}', "it is not a JWKS"),
        (b"{" + b'"a":[' * 5000, "it is not a JWKS"),
        (b'{"keys": []}', "a JWKS with a key for HS256, RS256, ES256 or EdDSA"),
        (b'{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}', "it is not a JWKS"),
        (b'{"keys": [{"kty": "EC", "crv": "P-256"}]}', "it is not a JWKS"),
        (jwks({**pair("ES256").jwk, "d": "AAAA"}), "this one has a private key"),
        (jwks({**pair("ES256").jwk, "kid": 7}), "whose 'kid's are strings"),
        (jwks({**pair("ES256").jwk, "alg": "HS256"}), "whose key of type EC is for ES256"),
        (jwks({**pair("HS256").jwk, "k": "AAAA"}), "a secret of at least 32 bytes"),
    ],
)
def test_what_cannot_be_used_is_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = key_file(tmp_path, content)
    with pytest.raises(ConfigError, match=rf'^auth\.keys\[0\] is ".*", expected .*{sentence}'):
        read_keys("auth.keys[0]", path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a file that can be read"):
        read_keys("auth.keys[0]", str(tmp_path / "none"))


def test_what_is_said_of_a_secret_does_not_tell_it(tmp_path: Path) -> None:
    [key] = read(tmp_path, pair("HS256").public)
    assert pair("HS256").signer.decode() not in repr(key)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, b"a short secret")
    assert "a short" not in str(caught.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_signs_is_read_and_signs(algorithm: str, tmp_path: Path) -> None:
    key = read_signing_key(key_file(tmp_path, pair(algorithm).private))
    [public_half] = read(tmp_path, pair(algorithm).public, "other.key")
    assert key.thumbprint == public_half.thumbprint
    assert make_token(key, ["a"], 2_000_000_000).count(".") == 2


def test_what_does_not_sign_is_refused(tmp_path: Path) -> None:
    other = of_private("ES256", ec.generate_private_key(ec.SECP384R1()))
    for content in (pair("ES256").public, b"short", b"-----BEGIN X", other.private, b""):
        with pytest.raises(ConfigError, match=r"^--key is "):
            read_signing_key(key_file(tmp_path, content))
    with pytest.raises(ConfigError, match="expected a file that can be read"):
        read_signing_key(str(tmp_path / "none"))


def test_tokens_of_the_tests_are_those_of_backends() -> None:
    assert token("a").count(".") == 2
