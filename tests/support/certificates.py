"""Certificates made on the spot: an authority, intermediates, and what they sign, good or bad."""

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KeyType = Literal["rsa", "ec", "ed25519"]
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

DAY = timedelta(days=1)
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
PEM = serialization.Encoding.PEM


class Files(NamedTuple):
    """Where a certificate was written: the values of `ssl.key`, `ssl.cert`, `ssl.chain` and `ssl.ca`."""

    key: str
    cert: str
    chain: str | None
    ca: str

    def settings(self) -> dict[str, str | None]:
        """The keys of a server in a configuration."""
        return {"ssl.key": self.key, "ssl.cert": self.cert, "ssl.chain": self.chain}


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, and the certificates above it: the next issuer first, the root last."""

    certificate: x509.Certificate
    key: PrivateKey
    above: tuple[x509.Certificate, ...] = ()

    @property
    def own(self) -> bytes:
        """The certificate alone, as PEM."""
        return pem(self.certificate)

    @property
    def chain(self) -> bytes:
        """The intermediates: what a server sends after its certificate, without the root."""
        return pem(*self.above[:-1])

    @property
    def root(self) -> bytes:
        """What a client has to trust: the root, or the certificate itself where it signed itself."""
        return pem(*self.above[-1:]) or self.own

    def write(self, folder: Path, name: str = "server") -> Files:
        """Write NAME.key, NAME.crt, NAME.chain (where there is one) and NAME.ca into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        return Files(
            key=put(folder / f"{name}.key", key_pem(self.key)),
            cert=put(folder / f"{name}.crt", self.own),
            chain=put(folder / f"{name}.chain", self.chain) if self.chain else None,
            ca=put(folder / f"{name}.ca", self.root),
        )


class Authority(Issued):
    """A certificate that signs others."""

    def issue(
        self,
        *names: str,
        kind: KeyType = "ec",
        starts: float = -1,
        days: float = 90,
        key: PrivateKey | None = None,
        client: bool = False,
    ) -> Issued:
        """A server's certificate for DNS names and addresses (this machine's by default); with `client` for both.

        It is valid from `starts` to `days` days from now: `starts=-2, days=-1` has expired.
        """
        names, key = names or LOCAL_NAMES, key or make_key(kind)
        builder = _with_names(_builder(names[0], key, self, starts, days), names, client=client)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        return Issued(_signed(builder, self.key), key, (self.certificate, *self.above))

    def intermediate(
        self, name: str = "Test Intermediate", kind: KeyType = "ec", starts: float = -1, days: float = 365
    ) -> "Authority":
        """An authority below this one."""
        key = make_key(kind)
        builder = _with_authority(_builder(name, key, self, starts, days))
        return Authority(_signed(builder, self.key), key, (self.certificate, *self.above))

    def cross_sign(self, other: "Authority") -> "Authority":
        """A second certificate for another authority's name and key, signed by this one."""
        name = other.certificate.subject.rfc4514_string().removeprefix("CN=")
        builder = _with_authority(_builder(name, other.key, self, -1, 365))
        return Authority(_signed(builder, self.key), other.key, (self.certificate, *self.above))


def root(name: str = "Test Root", kind: KeyType = "ec", days: float = 3650) -> Authority:
    """A new authority that signed itself."""
    key = make_key(kind)
    return Authority(_signed(_with_authority(_builder(name, key, None, -1, days)), key), key)


def self_signed(*names: str, kind: KeyType = "ec", starts: float = -1, days: float = 90) -> Issued:
    """A server's certificate that no authority signed."""
    names, key = names or LOCAL_NAMES, make_key(kind)
    return Issued(_signed(_with_names(_builder(names[0], key, None, starts, days), names), key), key)


def make_key(kind: KeyType = "ec", bits: int = 2048) -> PrivateKey:
    """A new private key; `bits` is for RSA."""
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else ed25519.Ed25519PrivateKey.generate()


def key_pem(key: PrivateKey, passphrase: str | None = None) -> bytes:
    """The key as PKCS #8, encrypted where a passphrase is given."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption)


def pem(*certificates: x509.Certificate) -> bytes:
    """Certificates one after the other."""
    return b"".join(each.public_bytes(PEM) for each in certificates)


def put(path: Path, content: bytes) -> str:
    """Write a file and give back its path as a configuration wants it."""
    path.write_bytes(content)
    return str(path)


def _builder(
    name: str, key: PrivateKey, issuer: Issued | None, starts: float, days: float
) -> x509.CertificateBuilder:
    """The key identifiers are what a strict client (Python 3.13's default) insists on."""
    now = datetime.now(timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signing_key = (issuer.key if issuer else key).public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + starts * DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key), critical=False)
    )


def _with_names(
    builder: x509.CertificateBuilder, names: tuple[str, ...], *, client: bool = False
) -> x509.CertificateBuilder:
    general_names = x509.SubjectAlternativeName([_general_name(name) for name in names])
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if client else [])]
    purpose = x509.ExtendedKeyUsage(uses)
    return builder.add_extension(general_names, critical=False).add_extension(purpose, critical=False)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _with_authority(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    return builder.add_extension(constraints, critical=True).add_extension(usage, critical=True)


def _signed(builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
    """Ed25519 has its hash built in (RFC 8410)."""
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
