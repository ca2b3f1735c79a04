"""Connections to the client port: DNS, TCP, TLS and plain HTTP requests, each with a diagnosis."""

import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any

import msgspec
from cryptography import x509

from aphlict.doctor.report import CheckFailed, CheckReport
from aphlict.doctor.target import Target
from aphlict.doctor.tls import certificate_end, untrusted
from aphlict.errors import UsageError
from aphlict.tls.certificates import RENEWAL_PERIOD
from aphlict.tls.ssl_context import unverified_context

TIMEOUT_SECONDS = 5.0  # for each step
MAX_BODY = 1024 * 1024  # bytes
LOCAL_HEADER = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"  # PROXY protocol 2, 2.2: LOCAL, without addresses
SECONDS_PER_DAY = 86400

Address = tuple[Any, ...]


class NotHTTP(OSError):
    """The other side did not send an HTTP response."""


@dataclass(frozen=True)
class Response:
    """An HTTP response. The names in `headers` are lower-case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes = b""

    @cached_property
    def json(self) -> Any:
        """The body, or None if it is not JSON."""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return None

    @property
    def error(self) -> str | None:
        """The sentence of an error response of Aphlict."""
        return self._text("error")

    @property
    def code(self) -> str | None:
        """The code of an error response of Aphlict."""
        return self._text("code")

    @property
    def date(self) -> float | None:
        """The time in the Date header, in seconds since 1970."""
        try:
            return parsedate_to_datetime(self.headers["date"]).timestamp()
        except (KeyError, ValueError):
            return None

    def _text(self, key: str) -> str | None:
        value = self.json.get(key) if isinstance(self.json, dict) else None
        return value if isinstance(value, str) else None


def send_request(
    sock: socket.socket, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
) -> HTTPResponse:
    """Send a request and return the response, of which only the head was read. Raises OSError."""
    connection = HTTPConnection("")
    connection.sock = sock
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    # A server that rejects the request early may close the connection: its response can be read all the same.
    with suppress(ssl.SSLEOFError, ConnectionError):
        connection.endheaders(body)
    try:
        return connection.getresponse()
    except ssl.SSLEOFError as error:
        raise ConnectionResetError from error
    except HTTPException as error:
        raise _as_os_error(error) from error


def read_response(response: HTTPResponse) -> Response:
    """Read the body of a response. Raises OSError."""
    try:
        body = response.read(MAX_BODY)
    except HTTPException as error:
        raise _as_os_error(error) from error
    return Response(response.status, response.reason, head_fields(response), body)


def head_fields(response: HTTPResponse) -> dict[str, str]:
    """Return the headers of a response with lower-case names."""
    return {name.lower(): value for name, value in response.getheaders()}


def _as_os_error(error: HTTPException) -> OSError:
    if isinstance(error, OSError):
        return error
    return NotHTTP(f"no HTTP response: {str(error)[:80]!r}")


class Connector:
    """Opens connections to a target. `check` reports each step, `open` does not."""

    def __init__(self, target: Target, context: ssl.SSLContext) -> None:
        self.target = target
        self._context = context
        self._address: tuple[int, Address] | None = None

    def check(self, report: CheckReport) -> None:
        """Check DNS, TCP and TLS. Raises CheckFailed."""
        with report.check("DNS") as passed:
            addresses = resolve(self.target.host, self.target.port)
            passed.message = f"{self.target.host} is {', '.join(address[0] for _, address in addresses)}"
        with report.check("TCP") as passed:
            failed = self._connect_any(addresses)
            assert self._address is not None
            passed.message = f"{self._address[1][0]} accepts connections on port {self.target.port}"
        for address, reason in failed:
            report.warn(
                "TCP",
                "address_unreachable",
                f"{address}, another address of {self.target.host}, does not accept connections on port "
                f"{self.target.port}: {reason}; browsers that try it first connect late or never",
                "make the proxy listen on it as well, or remove the address from the DNS",
            )
        if self.target.tls:
            self._check_tls(report)

    def _connect_any(self, addresses: Sequence[tuple[int, Address]]) -> list[tuple[str, str]]:
        """Try all addresses, and return those that fail, with the reason. Raises CheckFailed if all do."""
        tried = [(family, address, _try(family, address)) for family, address in addresses]
        failed = [(address[0], error) for _, address, error in tried if error is not None]
        if len(failed) == len(tried):
            raise _unreachable(self.target.host, self.target.port, failed[0][1])
        self._address = next((family, address) for family, address, error in tried if error is None)
        return [(address, explain(error)) for address, error in failed]

    def _check_tls(self, report: CheckReport) -> None:
        with report.check("TLS") as passed:
            try:
                sock = self.open()
            except ssl.SSLCertVerificationError as error:
                raise untrusted(self.target, error, self._peer_certificate()) from error
            except OSError as error:
                raise self._tls_failed(error) from error
            assert isinstance(sock, ssl.SSLSocket)
            with sock:
                ends = certificate_end(sock)
                passed.message = f"{sock.version()}, certificate valid for {self.target.host}"
        if ends is not None and ends - time.time() < RENEWAL_PERIOD.total_seconds():
            days = max(0, int((ends - time.time()) / SECONDS_PER_DAY))
            report.warn(
                "TLS",
                "certificate_expires_soon",
                f"the certificate expires in {days} days",
                "renew it where TLS is terminated",
            )

    def _peer_certificate(self) -> x509.Certificate | None:
        """Return the certificate of the other side, without verifying it."""
        try:
            with self._plain() as sock, unverified_context().wrap_socket(sock) as tls:
                data = tls.getpeercert(binary_form=True)
        except OSError:
            return None
        return x509.load_der_x509_certificate(data) if data else None

    def _tls_failed(self, error: OSError) -> CheckFailed:
        port = self.target.port
        if self._speaks_plain_http():
            return CheckFailed(
                "tls_missing",
                f"port {port} speaks plain HTTP, not TLS",
                "use ws:// if the site uses plain http too; otherwise terminate TLS there "
                "(a certificate in the proxy, or ssl.key and ssl.cert of the client server)",
            )
        return CheckFailed(
            "tls_failed",
            f"the TLS handshake on port {port} failed: {explain(error)}",
            "see the proxy's error log: usually it cannot use its certificate or key",
        )

    def _speaks_plain_http(self) -> bool:
        headers = {"Host": self.target.host, "Connection": "close"}
        try:
            with self._plain() as sock:
                return send_request(sock, "GET", "/", headers).status > 0
        except OSError:
            return False

    def speaks_tls(self) -> bool:
        """Whether the port accepts a TLS handshake."""
        try:
            with self._plain() as sock, unverified_context().wrap_socket(sock):
                return True
        except OSError:
            return False

    def open(self, timeout: float = TIMEOUT_SECONDS) -> socket.socket:
        """Connect to the address that accepted before. Raises OSError."""
        sock = self._plain()
        try:
            if self.target.tls:
                context = unverified_context() if self.target.server else self._context
                sock = context.wrap_socket(sock, server_hostname=self.target.host)
            sock.settimeout(timeout)
        except OSError:
            sock.close()
            raise
        return sock

    def get(self, path: str, headers: Mapping[str, str]) -> Response:
        """Send a GET request on a new connection. Raises OSError."""
        with self.open() as sock:
            return read_response(send_request(sock, "GET", path, {**self.headers(), **headers}))

    def headers(self) -> dict[str, str]:
        """Return the headers of every request."""
        page = {} if self.target.page_origin is None else {"Origin": self.target.page_origin}
        token = {} if self.target.token is None else {"Authorization": f"Bearer {self.target.token}"}
        return {"Host": self.target.authority, "User-Agent": "aphlict-doctor", **page, **token}

    def _plain(self) -> socket.socket:
        if self._address is None:
            self._address = resolve(self.target.host, self.target.port)[0]
        sock = _connect(*self._address)
        server = self.target.server
        if server is not None and server.proxy_protocol:
            sock.sendall(LOCAL_HEADER)
        return sock


def context_for(ca: str | None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, or those in a file. Raises UsageError."""
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise UsageError(f"--ca is {ca}, expected a file of certificates in PEM: {explain(error)}") from error


def resolve(host: str, port: int) -> list[tuple[int, Address]]:
    """Return the addresses of a host. Raises CheckFailed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CheckFailed(
            "dns_failed",
            f"{host} has no address ({reason})",
            "correct the name, or add it to the DNS (or to /etc/hosts of this machine)",
        ) from error
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def _connect(family: int, address: Address) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT_SECONDS)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def _try(family: int, address: Address) -> OSError | None:
    """Return the error of a connection attempt."""
    try:
        _connect(family, address).close()
    except OSError as error:
        return error
    return None


def explain(error: OSError) -> str:
    """Return the reason of a failure in a few words."""
    if isinstance(error, TimeoutError):
        return f"no response within {TIMEOUT_SECONDS:g} s"
    if isinstance(error, ConnectionResetError):
        return "connection closed"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return (error.strerror or str(error)).lower() if not isinstance(error, NotHTTP) else str(error)


def _unreachable(host: str, port: int, error: OSError) -> CheckFailed:
    if isinstance(error, ConnectionRefusedError):
        return CheckFailed(
            "connection_refused",
            f"nothing listens on port {port} of {host}",
            "start the proxy (or the server), or correct the port in the URL",
        )
    return CheckFailed(
        "connection_failed",
        f"{host} does not accept connections on port {port}: {explain(error)}",
        "open the port in the firewall (or security group) in between, or correct the URL",
    )
