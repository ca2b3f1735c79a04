"""The WebSocket of the doctor, and why a handshake was rejected."""

import json
import ssl
import time
from collections.abc import Callable
from typing import Any

import msgspec
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response as WebSocketResponse
from websockets.protocol import Event, State
from websockets.typing import Origin
from websockets.uri import parse_uri

from aphlict import errors
from aphlict.config.settings import ServerSettings
from aphlict.doctor.connector import TIMEOUT_SECONDS, Connector, NotHTTP, Response, explain
from aphlict.doctor.proxies import (
    CORRECT_PORT,
    EXAMPLES,
    FORWARD_UPGRADE,
    Hop,
    choose,
    hop_name,
    hop_of,
)
from aphlict.doctor.report import CheckFailed, Passed

CHUNK_SIZE = 16 * 1024
SWITCHING_PROTOCOLS = 101
UPGRADE_HEADERS = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
REDIRECTS = {301, 302, 303, 307, 308}
# What a proxy dropped, by the code of the server's response.
DROPPED = {
    errors.UpgradeRequired.code: "the Upgrade header",
    errors.ConnectionHeaderRequired.code: "the Connection header (it has to contain Upgrade)",
    errors.HTTP11Required.code: "HTTP/1.1 (the request arrived as HTTP/1.0)",
    errors.UnsupportedVersion.code: "the Sec-WebSocket-Version header",
    errors.InvalidWebSocketKey.code: "the Sec-WebSocket-Key header",
}
TOKEN_CODES = {
    errors.TokenMissing.code,
    errors.InvalidToken.code,
    errors.TokenExpired.code,
    errors.ChannelForbidden.code,
    errors.InstanceForbidden.code,
}
ADMIN_PORT_CODES = {
    errors.NotFound.code,
    errors.MethodNotAllowed.code,
    errors.CrossSiteRequest.code,
    errors.HostNotAllowed.code,
    errors.Unauthorized.code,
}
HOW_TO_AUTHENTICATE = (
    "pass a valid one: aphlict token --channel 'aphlict-doctor-*' | aphlict doctor --token-file - …"
)
SEE_MANUAL = "see docs/troubleshooting.md for this response"


class WebSocketProbe:
    """A WebSocket connection with a deadline for each operation. All methods raise OSError if it is lost."""

    def __init__(self, connector: Connector) -> None:
        self.pings = 0  # received and answered
        self.last_activity = time.monotonic()  # when the other side last sent something
        self._sock = connector.open()
        target = connector.target
        self._protocol = ClientProtocol(parse_uri(target.url), origin=Origin(target.origin))
        request = self._protocol.connect()
        for name, value in connector.headers().items():
            if name not in request.headers:
                request.headers[name] = value
        self._protocol.send_request(request)
        self._events: list[Event] = []

    def handshake(self, timeout: float) -> Response | None:
        """Send the request and return the response: None if it is not one of HTTP/1.1. Raises OSError."""
        self._flush()
        try:
            event = self._next_event(time.monotonic() + timeout)
        except NotHTTP:
            return None
        assert isinstance(event, WebSocketResponse)
        headers = {name.lower(): value for name, value in event.headers.raw_items()}
        return Response(event.status_code, event.reason_phrase, headers, bytes(event.body))

    @property
    def is_open(self) -> bool:
        """Whether the handshake succeeded (RFC 6455, 4.1)."""
        return self._protocol.state is State.OPEN

    @property
    def close_frame(self) -> str | None:
        """Code and reason of the close frame that the other side sent."""
        frame = self._protocol.close_rcvd
        return None if frame is None else f"{frame.code} {frame.reason}".rstrip()

    def command(self, name: str, data: Any, timeout: float) -> dict[str, Any]:
        """Send a command and return its response."""
        self._protocol.send_text(json.dumps({"command": name, "data": data, "id": name}).encode())
        self._flush()
        return self.receive(lambda message: message.get("id") == name, timeout)

    def receive(self, is_wanted: Callable[[dict[str, Any]], bool], timeout: float) -> dict[str, Any]:
        """Return the next wanted message. Other messages are dropped, pings are answered."""
        deadline = time.monotonic() + timeout
        while True:
            event = self._next_event(deadline)
            assert isinstance(event, Frame)
            if event.opcode is Opcode.PING:
                self.pings += 1
            elif event.opcode is Opcode.CLOSE:
                raise ConnectionResetError(f"closed with {self.close_frame}")
            elif event.opcode is Opcode.TEXT and is_wanted(message := _parse(bytes(event.data))):
                return message

    def stay_idle(self, seconds: float) -> float:
        """Send nothing but pongs, and return for how many seconds the connection lasted."""
        try:
            self.receive(lambda _message: False, seconds)
        except TimeoutError:
            return seconds
        except OSError:
            return time.monotonic() - self.last_activity
        raise AssertionError("no message is wanted")

    def close(self) -> None:
        """Close the connection without waiting for the other side."""
        try:
            if self.is_open:
                self._protocol.send_close(1000)
                self._flush()
        except OSError:
            pass  # it is closed already
        self._sock.close()

    def _next_event(self, deadline: float) -> Event:
        while not self._events:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("no response in time")
            self._sock.settimeout(remaining)
            data = self._read()
            self._flush()
            self._events = self._protocol.events_received()
            if self._events:
                self.last_activity = time.monotonic()
            elif self._protocol.handshake_exc is not None:
                raise NotHTTP("no HTTP/1.1 response")
            elif not data:
                raise ConnectionResetError("connection closed")
        return self._events.pop(0)

    def _read(self) -> bytes:
        try:
            data = self._sock.recv(CHUNK_SIZE)
        except ssl.SSLEOFError:
            data = b""
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        return data

    def _flush(self) -> None:
        """Send what the protocol has queued. An empty item asks for a half-close, which is not needed here."""
        for data in filter(None, self._protocol.data_to_send()):
            self._sock.sendall(data)


def _parse(payload: bytes) -> dict[str, Any]:
    """Return a message, or an empty one if it is not a JSON object: the server may be of another kind."""
    try:
        message = msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return {}
    return message if isinstance(message, dict) else {}


def upgrade(connector: Connector, client: ServerSettings, passed: Passed) -> tuple[WebSocketProbe, Response]:
    """Open a WebSocket. `client` is the server that the proxy should forward to. Raises CheckFailed."""
    try:
        session, response = _handshake(connector)
    except OSError as error:
        raise _no_response(connector, error) from error
    if response.status != SWITCHING_PROTOCOLS:
        session.close()
        raise _rejected(connector, client, response)
    if not session.is_open:
        session.close()
        raise CheckFailed(
            "handshake_mismatch",
            f"{hop_name(response)} responded with 101 to another request: a cache or another service is in between",
            "forward the path unchanged to Aphlict's client port",
        )
    server = response.headers.get("server")
    passed.message = f"{connector.target.path} upgrades to WebSocket" + (
        f", through {server}" if server else ""
    )
    return session, response


def _handshake(connector: Connector) -> tuple[WebSocketProbe, Response]:
    session = WebSocketProbe(connector)
    try:
        response = session.handshake(TIMEOUT_SECONDS)
        if response is None:  # http.client also reads HTTP/1.0, and knows what else it received
            response = connector.get(connector.target.path, UPGRADE_HEADERS)
    except OSError:
        session.close()
        raise
    return session, response


def _no_response(connector: Connector, error: OSError) -> CheckFailed:
    target = connector.target
    if not target.tls and connector.speaks_tls():
        return _tls_required(connector)
    if isinstance(error, NotHTTP):
        return CheckFailed(
            "not_http",
            f"port {target.port} of {target.host} does not speak HTTP: {error}",
            "correct the port in the URL, or in the proxy",
        )
    return CheckFailed(
        "no_response",
        f"no response to the WebSocket handshake: {explain(error)}",
        "see the proxy's error log; a port with proxy.protocol accepts only connections with a PROXY header",
    )


def _tls_required(connector: Connector) -> CheckFailed:
    target = connector.target
    return CheckFailed(
        "tls_required",
        f"port {target.port} requires TLS, but {target.url} does not use it",
        f"use wss://{target.authority}{target.path}",
    )


def _rejected(connector: Connector, client: ServerSettings, response: Response) -> CheckFailed:
    sender, status, target = hop_name(response), response.status, connector.target
    if response.code is not None:
        return _rejected_by_aphlict(connector, client, response, response.code)
    if status in REDIRECTS:
        location = response.headers.get("location", "nowhere")
        return CheckFailed(
            "redirected",
            f"{sender} redirects to {location[:200]}; browsers do not follow redirects of a WebSocket",
            f"use {_as_websocket(location)} as the URL, or exclude this path from the redirect",
        )
    if status == 400 and not target.tls and connector.speaks_tls():
        return _tls_required(connector)
    return _rejected_by_proxy(connector, client, response)


def _rejected_by_aphlict(
    connector: Connector, client: ServerSettings, response: Response, code: str
) -> CheckFailed:
    if code in DROPPED:
        return _header_dropped(response, code)
    if code == errors.OriginForbidden.code:
        origin = connector.target.origin
        message = f"Aphlict rejected the origin {origin}: {response.error}"
        remedy = (
            f'add "{origin}" to "origins" of the client server on port {client.port}, and send SIGHUP; '
            "or make the proxy forward the Origin header unchanged"
        )
        return CheckFailed(code, message, remedy)
    if code in ADMIN_PORT_CODES:
        return CheckFailed(
            "admin_port",
            f"the path leads to Aphlict's admin port ({response.error})",
            f"forward it to the client port, {client.port}",
        )
    if code == errors.InvalidRequestLine.code:
        return CheckFailed(
            code,
            f"Aphlict responded with {response.status}: {response.error}; "
            "a load balancer may send a PROXY header that the server does not expect",
            'set "proxy.protocol": true for the client server, or remove send-proxy from the load balancer',
        )
    remedy = HOW_TO_AUTHENTICATE if code in TOKEN_CODES else SEE_MANUAL
    return CheckFailed(code, f"Aphlict responded with {response.status}: {response.error}", remedy)


def _header_dropped(response: Response, code: str) -> CheckFailed:
    """The request reached Aphlict, so the path is right. The Server header is that of the last proxy."""
    hop = hop_of(response)
    by = "a proxy" if hop is Hop.APHLICT else hop_name(response)
    return CheckFailed(
        code,
        f"the handshake was rejected ({response.status}): {by} dropped {DROPPED[code]}",
        choose(FORWARD_UPGRADE, hop),
    )


def _as_websocket(location: str) -> str:
    return location.replace("http", "ws", 1) if location.startswith("http") else "its target"


def _rejected_by_proxy(connector: Connector, client: ServerSettings, response: Response) -> CheckFailed:
    path, hop, status = connector.target.path, hop_of(response), response.status
    port = f"{choose(CORRECT_PORT, hop)}: Aphlict listens on port {client.port} of this machine"
    message = f"{hop_name(response)} responded with {status} {response.reason}".rstrip()
    examples = f"{choose(EXAMPLES, hop)} has configurations"
    if status == 404:
        return CheckFailed(
            "path_not_forwarded",
            f"{message}: it does not forward {path} to Aphlict",
            f"add that path; {examples}",
        )
    if status in (401, 403):
        remedy = f"exempt {path} from the login: a WebSocket cannot fill in a form"
        return CheckFailed("access_denied", f"{message}: it denies access", remedy)
    if status in (502, 503):
        if client.proxy_protocol:
            port += ', and closes connections without a PROXY header ("proxy.protocol": true)'
        return CheckFailed("upstream_unreachable", f"{message}: it cannot connect to Aphlict", port)
    if status == 504:
        message += f": the server to which it forwards {path} does not respond"
        return CheckFailed("upstream_timeout", message, port)
    if status == 500:
        remedy = (
            "see its error log; in Apache, a missing module causes this (a2enmod proxy_http proxy_wstunnel)"
        )
        return CheckFailed("proxy_error", f"{message} to the handshake", remedy)
    if status in (200, 204, 304):
        message += f" to {path}: the site responded, not Aphlict"
        return CheckFailed("path_not_forwarded", message, examples)
    remedy = choose(FORWARD_UPGRADE, hop)
    return CheckFailed("handshake_rejected", f"{message} to the handshake", remedy)
