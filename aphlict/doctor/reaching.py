"""The way to a port: DNS, TCP and TLS, and what it means where one of them fails."""

import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any

from cryptography import x509

from aphlict.doctor.findings import CheckList, Trouble
from aphlict.doctor.stream import Ended, NotHttp, Stream
from aphlict.doctor.target import Target
from aphlict.doctor.trusting import distrust, end_of
from aphlict.errors import UsageError
from aphlict.tls.certificates import RENEWAL_PERIOD

TIMEOUT = 5.0  # seconds for each step
LOCAL_PREFACE = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"  # PROXY protocol 2, 2.2: LOCAL, nothing follows
DAY = 86400

Address = tuple[Any, ...]


class Reaching:
    """Opens connections to a target, each step a check the first time (`walk`), silently after that (`open`)."""

    def __init__(self, target: Target, context: ssl.SSLContext) -> None:
        self.target = target
        self._context = context
        self._address: tuple[int, Address] | None = None

    def walk(self, checks: CheckList) -> None:
        """Go all the way once. Raises Trouble."""
        with checks.check("DNS") as note:
            addresses = resolve(self.target.host, self.target.port)
            note.says = f"{self.target.host} is {', '.join(address[0] for _, address in addresses)}"
        with checks.check("TCP") as note:
            failed = self._connect_any(addresses)
            assert self._address is not None
            note.says = f"{self._address[1][0]} takes connections on port {self.target.port}"
        for address, why in failed:
            checks.doubt(
                "TCP",
                f"{address}, which is an address of {self.target.host} too, does not answer on port "
                f"{self.target.port}: {why}; browsers that try it first come late or never",
                "have the proxy listen there as well, or take the address out of the DNS",
            )
        if self.target.tls:
            self._walk_tls(checks)

    def _connect_any(self, addresses: Sequence[tuple[int, Address]]) -> list[tuple[str, str]]:
        """Try all; raise Trouble where none answers; return those that do not, with the reason."""
        tried = [(family, address, _try(family, address)) for family, address in addresses]
        failed = [(address[0], error) for _, address, error in tried if error is not None]
        if len(failed) == len(tried):
            raise _unreachable(self.target.host, self.target.port, failed[0][1])
        self._address = next((family, address) for family, address, error in tried if error is None)
        return [(address, explain(error)) for address, error in failed]

    def _walk_tls(self, checks: CheckList) -> None:
        with checks.check("TLS") as note:
            try:
                stream = self.open()
            except ssl.SSLCertVerificationError as error:
                raise distrust(self.target, error, self._peer_certificate()) from error
            except OSError as error:
                raise self._no_tls(error) from error
            assert isinstance(stream.socket, ssl.SSLSocket)
            ends = end_of(stream.socket)
            note.says = f"{stream.socket.version()}, a certificate that is good for {self.target.host}"
            stream.close()
        if ends is not None and ends - time.time() < RENEWAL_PERIOD.total_seconds():
            days = max(0, int((ends - time.time()) / DAY))
            checks.doubt("TLS", f"the certificate ends in {days} days", "renew it where TLS is ended")

    def _peer_certificate(self) -> x509.Certificate | None:
        """What the other side shows, whether or not it can be believed."""
        try:
            with self._plain() as sock, unverified().wrap_socket(sock) as tls:
                data = tls.getpeercert(binary_form=True)
        except OSError:
            return None
        return x509.load_der_x509_certificate(data) if data else None

    def _no_tls(self, error: OSError) -> Trouble:
        port = self.target.port
        if self.speaks_plain():
            return Trouble(
                f"port {port} speaks plain HTTP, not TLS",
                "use ws:// where the site is plain http too; else have TLS ended there "
                "(a certificate in the proxy, or ssl.key and ssl.cert of the client server)",
            )
        return Trouble(
            f"no TLS session on port {port}: {explain(error)}",
            "see what the proxy's error log says of it: usually a certificate or key that it cannot use",
        )

    def speaks_plain(self) -> bool:
        """Whether an HTTP request without TLS is answered by more than a complaint about that."""
        stream = Stream(self._plain(), TIMEOUT)
        try:
            stream.send(
                b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % self.target.host.encode()
            )
            return stream.take_answer().status > 0
        except OSError:
            return False
        finally:
            stream.close()

    def speaks_tls(self) -> bool:
        """Whether a TLS session can be had."""
        try:
            with self._plain() as sock, unverified().wrap_socket(sock):
                return True
        except OSError:
            return False

    def open(self, timeout: float = TIMEOUT) -> Stream:
        """Connect the way that was found; raises OSError, ssl.SSLError among them."""
        sock = self._plain()
        try:
            if self.target.tls:
                context = unverified() if self.target.server else self._context
                sock = context.wrap_socket(sock, server_hostname=self.target.host)
        except OSError:
            sock.close()
            raise
        return Stream(sock, timeout)

    def _plain(self) -> socket.socket:
        family, address = self._address or resolve(self.target.host, self.target.port)[0]
        sock = _connect(family, address)
        server = self.target.server
        if server is not None and server.proxy_protocol:
            sock.sendall(LOCAL_PREFACE)
        return sock


def context_for(ca: str | None) -> ssl.SSLContext:
    """What a browser trusts: this machine's authorities, or those in a file. Raises UsageError."""
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise UsageError(f"--ca is {ca}, expected a file of certificates in PEM: {explain(error)}") from error


def unverified() -> ssl.SSLContext:
    """A context that takes any certificate: this machine's own server, or one that is only looked at."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def resolve(host: str, port: int) -> list[tuple[int, Address]]:
    """The addresses of a host. Raises Trouble."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise Trouble(
            f"{host} has no address ({why})",
            "correct the name, or add it to the DNS (or to /etc/hosts of this machine)",
        ) from error
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def _connect(family: int, address: Address) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def _try(family: int, address: Address) -> OSError | None:
    """What keeps an address from being connected to."""
    try:
        _connect(family, address).close()
    except OSError as error:
        return error
    return None


def explain(error: OSError) -> str:
    """The reason of a failure in a few words."""
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, Ended):
        return "it closed the connection"
    if isinstance(error, NotHttp):
        return str(error)
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return (error.strerror or str(error)).lower()


def _unreachable(host: str, port: int, error: OSError) -> Trouble:
    if isinstance(error, ConnectionRefusedError):
        return Trouble(
            f"nothing listens on port {port} of {host}",
            "start the proxy (or the server), or correct the port in the URL",
        )
    return Trouble(
        f"{host} does not take connections on port {port}: {explain(error)}",
        "open the port in the firewall (or security group) between here and there, or correct the URL",
    )
