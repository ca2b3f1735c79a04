"""Contexts, proven with real handshakes: Python's client, and the openssl program as an independent one."""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from aphlict.config.settings import ServerSettings
from aphlict.errors import CertificateError
from aphlict.tls.certificates import in_memory
from aphlict.tls.ssl_context import client_context, server_context
from tests.support import certificates
from tests.support.certificates import Authority, Files, KeyType

ROOT = Path(__file__).parents[2]
LOAD_AS_NOBODY = """
import os, sys
from aphlict.config.settings import ServerSettings
from aphlict.tls.ssl_context import server_context
os.chdir(sys.argv[1])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
server_context(ServerSettings(type="client", port=443, ssl_key="server.key", ssl_cert="server.crt"))
"""


def settings(files: Files) -> ServerSettings:
    return ServerSettings(
        type="client", port=443, ssl_key=files.key, ssl_cert=files.cert, ssl_chain=files.chain
    )


@contextmanager
def serving(context: ssl.SSLContext) -> Iterator[int]:
    """Answer each TLS connection on a port with "hello", as long as the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=_serve, args=(listener, context))
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            accepted, _ = listener.accept()
        except OSError:  # shut down: the test is over
            return
        with accepted, suppress(OSError), context.wrap_socket(accepted, server_side=True) as secure:
            secure.sendall(b"hello")
            secure.recv(1)


@contextmanager
def connected(
    port: int, context: ssl.SSLContext, name: str = "localhost", session: ssl.SSLSession | None = None
) -> Iterator[ssl.SSLSocket]:
    plain = socket.create_connection(("127.0.0.1", port), timeout=5)
    with plain, context.wrap_socket(plain, server_hostname=name, session=session) as secure:
        assert secure.recv(5) == b"hello"
        yield secure


def shake_hands(port: int, context: ssl.SSLContext, name: str = "localhost") -> str | None:
    """Connect and leave; tells the version of TLS."""
    with connected(port, context, name) as secure:
        return secure.version()


def openssl(port: int, *options: str, typed: str = "") -> str:
    """What the openssl program says of a connection; it types once it was greeted."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", *options]
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    said = b""
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=both) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        while more := os.read(client.stdout.fileno(), 65536):
            said += more
            if b"hello" in said and not client.stdin.closed:
                client.stdin.write(typed.encode())
                client.stdin.close()
    return said.decode()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return certificates.root()


@pytest.fixture(scope="module")
def files(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return authority.intermediate().issue().write(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def port(files: Files) -> Iterator[int]:
    with serving(server_context(settings(files))) as port:
        yield port


@pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
def test_every_kind_of_key_serves(tmp_path: Path, kind: KeyType) -> None:
    files = certificates.root(kind=kind).intermediate(kind=kind).issue(kind=kind).write(tmp_path)
    with serving(server_context(settings(files))) as port:
        assert shake_hands(port, client_context(files.ca)) == "TLSv1.3"


def test_a_peer_is_checked_by_name_and_by_address(port: int, files: Files) -> None:
    assert shake_hands(port, client_context(files.ca), "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(port, client_context(files.ca), "push.example.com")


def test_a_peer_that_the_system_does_not_trust_is_refused(port: int) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(port, client_context(None))


def test_a_peer_of_another_authority_is_refused(port: int, tmp_path: Path) -> None:
    other = certificates.root().issue().write(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(port, client_context(other.ca))


def test_the_chain_is_sent_after_the_certificate(port: int, files: Files) -> None:
    said = openssl(port, "-CAfile", files.ca, "-verify_return_error", "-showcerts")
    assert "Verify return code: 0 (ok)" in said
    assert said.count("BEGIN CERTIFICATE") == 2
    assert "0 s:CN = localhost" in said
    assert "1 s:CN = Test Intermediate" in said


def test_the_chain_may_be_in_the_file_of_the_certificate(tmp_path: Path) -> None:
    issued = certificates.root().intermediate().issue()
    files = issued.write(tmp_path)
    Path(files.cert).write_bytes(issued.own + issued.chain)
    with serving(server_context(settings(files._replace(chain=None)))) as port:
        assert shake_hands(port, client_context(files.ca))


def test_one_file_may_hold_everything(tmp_path: Path) -> None:
    issued = certificates.root().intermediate().issue()
    files = issued.write(tmp_path)
    everything = certificates.put(
        tmp_path / "all.pem", certificates.key_pem(issued.key) + issued.own + issued.chain
    )
    with serving(server_context(settings(Files(everything, everything, None, files.ca)))) as port:
        assert openssl(port, "-showcerts").count("BEGIN CERTIFICATE") == 2


def test_a_chain_in_disorder_is_sent_in_order(tmp_path: Path) -> None:
    issued = certificates.root().intermediate("Upper").intermediate("Lower").issue()
    files = issued.write(tmp_path)
    lower, upper, root = issued.above
    Path(str(files.chain)).write_bytes(certificates.pem(root, upper, lower))
    with serving(server_context(settings(files))) as port:
        said = openssl(port, "-CAfile", files.ca)
    names = [line.split("CN = ")[1] for line in said.splitlines() if " s:CN = " in line]
    assert names == ["localhost", "Lower", "Upper", "Test Root"]


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_versions_that_are_spoken(port: int, files: Files, version: str) -> None:
    assert "Verify return code: 0 (ok)" in openssl(port, "-CAfile", files.ca, version)


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_versions_that_are_not(port: int, version: str) -> None:
    assert "Cipher is (NONE)" in openssl(port, version, "-cipher", "ALL:@SECLEVEL=0")


def test_one_ticket_is_sent(port: int, files: Files) -> None:
    assert openssl(port, "-CAfile", files.ca, "-msg").count("NewSessionTicket") == 1


def test_a_browser_that_comes_back_resumes_its_session(port: int, files: Files) -> None:
    context = client_context(files.ca)
    with connected(port, context) as secure:
        session = secure.session
    with connected(port, context, session=session) as secure:
        assert secure.session_reused


def test_nothing_is_compressed(port: int) -> None:
    assert "Compression: NONE" in openssl(port, "-tls1_2", "-comp")


def test_renegotiation_is_refused(port: int) -> None:
    assert "no renegotiation" in openssl(port, "-tls1_2", typed="R\n")


def test_http_1_1_is_what_is_agreed_on(port: int, files: Files) -> None:
    context = client_context(files.ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connected(port, context) as secure:
        assert secure.selected_alpn_protocol() == "http/1.1"


def test_a_client_that_names_no_protocol_is_served(port: int, files: Files) -> None:
    with connected(port, client_context(files.ca)) as secure:
        assert secure.selected_alpn_protocol() is None


def test_no_descriptor_of_the_key_stays(files: Files) -> None:
    with in_memory(b"key") as path:
        assert Path(path).read_bytes() == b"key"
        assert memory_files()
    server_context(settings(files))
    assert not memory_files()


def memory_files() -> list[str]:
    """The open files of this process that exist in memory alone."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # another thread has closed it
            found.append(str(each.readlink()))
    return [name for name in found if "memfd:aphlict-tls" in name]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give up being root")
def test_who_gave_up_root_can_still_load_certificates(tmp_path: Path) -> None:
    """/proc/self belongs to root after that; /proc/self/fd stays readable."""
    certificates.self_signed().write(tmp_path)
    tmp_path.chmod(0o755)
    command = [sys.executable, "-c", LOAD_AS_NOBODY, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, timeout=20, check=True)


class TestClient:
    @pytest.mark.parametrize("content", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
    def test_an_authority_that_is_none(self, tmp_path: Path, content: bytes) -> None:
        name = certificates.put(tmp_path / "ca.pem", content)
        with pytest.raises(CertificateError) as caught:
            client_context(name)
        assert str(caught.value).startswith(f'ssl.ca is "{name}", expected a file of certificates in PEM (')

    def test_an_authority_that_is_not_there(self) -> None:
        with pytest.raises(CertificateError) as caught:
            client_context("/nowhere/ca.pem")
        expected = "a file of certificates in PEM (No such file or directory)"
        assert str(caught.value) == f'ssl.ca is "/nowhere/ca.pem", expected {expected}'

    def test_old_versions_are_refused(self) -> None:
        assert client_context(None).minimum_version >= ssl.TLSVersion.TLSv1_2
