"""What cannot serve, in one sentence each; and what can, in which order."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aphlict.config.settings import ServerSettings
from aphlict.errors import CertificateError, ConfigError
from aphlict.tls.certificates import load
from aphlict.tls.ssl_context import server_context
from tests.support import certificates
from tests.support.certificates import Authority, Files, Issued, KeyType


def settings(files: Files) -> ServerSettings:
    return ServerSettings(
        type="client", port=443, ssl_key=files.key, ssl_cert=files.cert, ssl_chain=files.chain
    )


def names(files: Files) -> list[str]:
    """The common names of what is sent, in its order."""
    return [each.subject.rfc4514_string().removeprefix("CN=") for each in load(settings(files)).certificates]


def refusal(files: Files) -> str:
    """The sentence about files that cannot serve; a context refuses them with the same one."""
    with pytest.raises(CertificateError) as caught:
        load(settings(files))
    assert isinstance(caught.value, ConfigError)
    with pytest.raises(CertificateError) as again:
        server_context(settings(files))
    assert str(again.value) == str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def intermediate() -> Authority:
    return certificates.root().intermediate()


@pytest.fixture(scope="module")
def issued(intermediate: Authority) -> Issued:
    return intermediate.issue()


@pytest.fixture
def files(issued: Issued, tmp_path: Path) -> Files:
    return issued.write(tmp_path)


@pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
def test_every_kind_of_key(tmp_path: Path, kind: KeyType) -> None:
    files = certificates.root(kind=kind).intermediate(kind=kind).issue(kind=kind).write(tmp_path)
    assert names(files) == ["localhost", "Test Intermediate"]


def test_kinds_of_keys_can_be_mixed(tmp_path: Path) -> None:
    files = certificates.root(kind="rsa").intermediate(kind="ec").issue(kind="ed25519").write(tmp_path)
    assert names(files) == ["localhost", "Test Intermediate"]


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_the_traditional_form_of_a_key(tmp_path: Path, kind: KeyType) -> None:
    files = certificates.self_signed(kind=kind).write(tmp_path)
    key = str(tmp_path / "traditional.key")
    subprocess.run(["openssl", "pkey", "-traditional", "-in", files.key, "-out", key], check=True, timeout=10)
    assert names(files._replace(key=key)) == ["localhost"]


def test_parameters_before_a_key(files: Files) -> None:
    """What `openssl ecparam -genkey` writes."""
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    Path(files.key).write_bytes(parameters + Path(files.key).read_bytes())
    assert names(files)


class TestFiles:
    @pytest.mark.parametrize(
        ("attribute", "key"), [("key", "ssl.key"), ("cert", "ssl.cert"), ("chain", "ssl.chain")]
    )
    def test_a_file_that_is_gone(self, files: Files, attribute: str, key: str) -> None:
        name = str(getattr(files, attribute))
        Path(name).unlink()
        expected = "a file that can be read (No such file or directory)"
        assert refusal(files) == f'{key} of the client server on port 443 is "{name}", expected {expected}'

    @pytest.mark.parametrize(
        "content", [b"", b"\0\xff", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
    )
    def test_a_key_that_is_none(self, files: Files, content: bytes) -> None:
        Path(files.key).write_bytes(content)
        assert refusal(files).endswith(f'is "{files.key}", expected a private key in PEM')

    def test_key_and_certificate_in_each_others_place(self, files: Files) -> None:
        swapped = files._replace(key=files.cert, cert=files.key)
        assert refusal(swapped).endswith(f'is "{files.cert}", expected a private key in PEM')

    def test_a_key_with_a_passphrase(self, files: Files, issued: Issued) -> None:
        Path(files.key).write_bytes(certificates.key_pem(issued.key, passphrase="secret"))
        assert "expected a key without a passphrase" in refusal(files)

    @pytest.mark.parametrize(
        "content", [b"", b"\0\xff", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    )
    @pytest.mark.parametrize(("attribute", "key"), [("cert", "ssl.cert"), ("chain", "ssl.chain")])
    def test_a_certificate_that_is_none(self, files: Files, attribute: str, key: str, content: bytes) -> None:
        name = str(getattr(files, attribute))
        Path(name).write_bytes(content)
        sentence = refusal(files)
        assert sentence == f'{key} of the client server on port 443 is "{name}", expected certificates in PEM'

    def test_a_key_that_openssl_finds_too_weak(self, tmp_path: Path) -> None:
        key = certificates.make_key("rsa", bits=1024)
        files = certificates.root().issue(key=key).write(tmp_path)
        with pytest.raises(CertificateError, match=r"a certificate that OpenSSL accepts \(.*key too small\)"):
            server_context(settings(files))

    def test_the_key_is_in_no_representation(self, files: Files) -> None:
        assert "PRIVATE KEY" not in repr(load(settings(files)))


class TestMatch:
    @pytest.mark.parametrize("kind", ["ec", "rsa"])
    def test_the_key_of_another_certificate(self, files: Files, kind: KeyType) -> None:
        Path(files.key).write_bytes(certificates.key_pem(certificates.make_key(kind)))
        expected = 'the key of the first certificate in ssl.cert, "CN=localhost"'
        assert refusal(files) == (
            f'ssl.key of the client server on port 443 is "{files.key}", expected {expected}'
        )

    def test_the_certificate_behind_its_issuer(self, files: Files, issued: Issued) -> None:
        Path(files.cert).write_bytes(issued.chain + issued.own)
        assert refusal(files).endswith("it is that of certificate 2, which must come first")


class TestChain:
    def test_none(self, tmp_path: Path) -> None:
        assert names(certificates.root().issue().write(tmp_path)) == ["localhost"]
        assert names(certificates.self_signed().write(tmp_path)) == ["localhost"]

    def test_in_the_file_of_the_certificate(self, files: Files, issued: Issued) -> None:
        Path(files.cert).write_bytes(issued.own + issued.chain)
        assert names(files._replace(chain=None)) == ["localhost", "Test Intermediate"]

    def test_in_both_files(self, files: Files, issued: Issued) -> None:
        """As with fullchain.pem and chain.pem of one authority that everybody uses."""
        Path(files.cert).write_bytes(issued.own + issued.chain)
        identity = load(settings(files))
        assert len(identity.certificates) == 2
        assert identity.in_order
        assert not identity.unrelated

    def test_with_the_root_last(self, files: Files, issued: Issued) -> None:
        Path(str(files.chain)).write_bytes(issued.chain + issued.root)
        assert names(files) == ["localhost", "Test Intermediate", "Test Root"]
        assert load(settings(files)).in_order

    def test_of_several_in_order(self, tmp_path: Path) -> None:
        files = certificates.root().intermediate("Upper").intermediate("Lower").issue().write(tmp_path)
        assert names(files) == ["localhost", "Lower", "Upper"]
        assert load(settings(files)).in_order

    def test_of_several_in_disorder(self, tmp_path: Path) -> None:
        issued = certificates.root().intermediate("Upper").intermediate("Lower").issue()
        files = issued.write(tmp_path)
        Path(str(files.chain)).write_bytes(certificates.pem(*reversed(issued.above)))
        assert names(files) == ["localhost", "Lower", "Upper", "Test Root"]
        assert not load(settings(files)).in_order

    def test_that_signed_nothing(self, files: Files) -> None:
        Path(str(files.chain)).write_bytes(certificates.root("Other").own)
        expected = 'a chain with the certificate that signed the server\'s own: "CN=Test Intermediate"'
        assert refusal(files).endswith(f'is "{files.chain}", expected {expected}')

    def test_of_a_namesake_with_another_key(self, files: Files) -> None:
        """What is left of an authority that has renewed its intermediate."""
        Path(str(files.chain)).write_bytes(certificates.root().intermediate().own)
        assert "expected a chain with the certificate that signed the server's own" in refusal(files)

    def test_with_a_stranger(self, files: Files, issued: Issued) -> None:
        Path(str(files.chain)).write_bytes(certificates.root("Other").own + issued.chain)
        assert names(files) == ["localhost", "Test Intermediate"]
        identity = load(settings(files))
        assert [each.subject.rfc4514_string() for each in identity.unrelated] == ["CN=Other"]
        assert identity.in_order

    def test_with_two_certificates_of_one_issuer(self, tmp_path: Path) -> None:
        """Cross-signing: one key, signed by itself and by an older root."""
        young, old = certificates.root("Young"), certificates.root("Old")
        issued = young.issue()
        files = issued.write(tmp_path)
        crossed = old.cross_sign(young)
        chain = certificates.put(tmp_path / "chain", young.own + crossed.own)
        assert names(files._replace(chain=chain)) == ["localhost", "Young", "Young"]
        assert not load(settings(files._replace(chain=chain))).unrelated


@given(at=st.integers(0, 5000), junk=st.binary(max_size=6), which=st.sampled_from(["key", "cert", "chain"]))
def test_damaged_files_raise_nothing_else(
    damage: Files, pristine: dict[str, bytes], at: int, junk: bytes, which: str
) -> None:
    content = pristine[which]
    at %= len(content)
    Path(str(getattr(damage, which))).write_bytes(content[:at] + junk + content[at + len(junk) :])
    try:
        server_context(settings(damage))
    except CertificateError as error:
        sentence = str(error)
    else:
        sentence = ""
    finally:
        Path(str(getattr(damage, which))).write_bytes(content)
    assert not sentence or sentence.isprintable()


@pytest.fixture(scope="module")
def damage(issued: Issued, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return issued.write(tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def pristine(damage: Files) -> dict[str, bytes]:
    return {name: Path(str(path)).read_bytes() for name, path in damage._asdict().items()}
