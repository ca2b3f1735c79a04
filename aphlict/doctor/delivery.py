"""Whether published messages arrive: over the WebSocket, over the event stream, and the other endpoints."""

import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

from aphlict.doctor.admin_client import AdminClient
from aphlict.doctor.connector import (
    Connector,
    Response,
    explain,
    head_fields,
    read_response,
    send_request,
)
from aphlict.doctor.proxies import (
    DISABLE_BUFFERING,
    RAISE_TIMEOUT,
    Hop,
    choose,
    hop_name,
    hop_of,
)
from aphlict.doctor.report import CheckFailed, CheckReport
from aphlict.doctor.target import Target
from aphlict.doctor.upgrade import HOW_TO_AUTHENTICATE, TOKEN_CODES, WebSocketProbe
from aphlict.errors import CommandError, PublishFailed
from aphlict.protocol.http import DEFAULT_INSTANCE, instance_path

RECEIVE_TIMEOUT_SECONDS = 3.0  # for a response or a message
SLOW_SECONDS = 0.5  # from publish to receive; more is a warning
SEE_LOG = "see the server's log"
OK = 200
CHUNK_SIZE = 16 * 1024
UNAVAILABLE = "endpoint_unavailable"
FORWARD_ALL = "forward all paths below it, not only upgrades (docs/proxies.md)"


def new_channel() -> str:
    """Return a channel that nothing else uses."""
    return f"aphlict-doctor-{secrets.token_hex(8)}"


@dataclass(frozen=True)
class DeliveryCheck:
    """An open session, and the admin server whose messages it should receive."""

    session: WebSocketProbe
    target: Target
    admin: AdminClient

    def check_delivery(self, report: CheckReport) -> None:
        """Subscribe, publish and receive. Raises CheckFailed."""
        channel = new_channel()
        with report.check("commands") as passed:
            self._subscribe(channel)
            passed.message = "a subscription was acknowledged"
        with report.check("delivery") as passed:
            seconds = self._deliver(channel)
            passed.message = (
                f"published to instance '{self.target.instance}', received after {1000 * seconds:.0f} ms"
            )
        if seconds > SLOW_SECONDS:
            remedy = "check the load of this machine and of the proxy"
            report.warn("delivery", "delivery_slow", f"a message took {seconds:.1f} s", remedy)

    def _subscribe(self, channel: str) -> None:
        try:
            response = self.session.command("subscribe", [channel], RECEIVE_TIMEOUT_SECONDS)
        except OSError as error:
            raise CheckFailed(
                "frames_blocked",
                f"the handshake succeeded, but there was no response to a command ({error}): frames are blocked",
                "look for a proxy, filter or virus scanner in between that inspects the traffic",
            ) from error
        if response.get("type") != "ack":
            code = str(response.get("code", CommandError.code))
            raise CheckFailed(
                code,
                f"the server rejected a subscription: {response.get('error')}",
                HOW_TO_AUTHENTICATE if code in TOKEN_CODES else SEE_LOG,
            )

    def _deliver(self, channel: str) -> float:
        start = time.monotonic()
        matched = publish(self.admin, self.target.instance, channel)
        try:
            self.session.receive(
                lambda message: channel in message.get("subscribers", ()), RECEIVE_TIMEOUT_SECONDS
            )
        except OSError as error:
            raise self._undelivered(channel, matched) from error
        return time.monotonic() - start

    def _undelivered(self, channel: str, matched: int) -> CheckFailed:
        instance = self.target.instance
        if matched:
            return CheckFailed(
                "message_lost",
                f"the server sent a message that did not arrive within {RECEIVE_TIMEOUT_SECONDS:g} s",
                "look for a proxy in between that buffers frames",
            )
        if instance != DEFAULT_INSTANCE and publish(self.admin, DEFAULT_INSTANCE, channel):
            return CheckFailed(
                "instance_dropped",
                f"the URL contains the instance '{instance}', but the client is in '{DEFAULT_INSTANCE}': "
                f"a proxy removes '{instance_path(instance)}' from the path",
                "forward the whole path (nginx: `proxy_pass http://aphlict;` without a path after the name)",
            )
        return CheckFailed(
            "wrong_server",
            "a message that was published to this node has no subscriber here: the URL leads to another server, "
            "or to an instance with another name",
            "correct the address to which the proxy forwards the path; in a cluster, see the peers below",
        )

    def check_idle(self, report: CheckReport, seconds: float, ping_interval: float, hop: Hop) -> None:
        """Check whether a connection survives `seconds` without messages. Raises CheckFailed."""
        with report.check("idle") as passed:
            lasted = self.session.stay_idle(seconds)
            if lasted < seconds:
                raise self._closed_early(lasted, ping_interval, hop)
            pings = self.session.pings
            passed.message = (
                f"an idle connection is open after {seconds:g} s ({pings} ping{'s' * (pings != 1)} answered)"
            )

    def _closed_early(self, lasted: float, ping_interval: float, hop: Hop) -> CheckFailed:
        if self.session.close_frame is not None:
            return CheckFailed(
                "closed_by_server",
                f"the server closed an idle connection after {lasted:.0f} s ({self.session.close_frame})",
                "see the server's log for the reason",
            )
        return CheckFailed(
            "idle_timeout",
            f"an idle connection was closed after {lasted:.1f} s, and not by Aphlict, which sends a ping every "
            f"{ping_interval:g} s: the idle timeout of a proxy is shorter",
            f"{choose(RAISE_TIMEOUT, hop)}, or set ping.interval to less than {lasted:.0f} s",
        )


def publish(admin: AdminClient, instance: str, channel: str) -> int:
    """Publish a test message, and return how many connections of that node receive it. Raises CheckFailed."""
    message: dict[str, Any] = {"type": "doctor", "subscribers": [channel]}
    try:
        response = admin.publish(instance, message)
    except OSError as error:
        reason = f"{admin.url} did not accept a message: {error}"
        raise CheckFailed(PublishFailed.code, reason, SEE_LOG) from error
    if response.status != 200 or not isinstance(response.json, dict):
        reason = f"{admin.url} rejected a message: {response.status} {response.error}"
        raise CheckFailed(response.code or PublishFailed.code, reason, SEE_LOG)
    return int(response.json.get("matched", 0))


def check_endpoints(connector: Connector, report: CheckReport) -> Hop:
    """Check …/status, the target of health checks, and …/poll. Returns the program that responds, if known."""
    hop = Hop.OTHER
    for name, path in ("status page", "status"), ("polling", f"poll?channel={new_channel()}&wait=0"):
        endpoint = connector.target.endpoint(path)
        shown = endpoint.partition("?")[0]
        try:
            response = connector.get(endpoint, {"Connection": "close"})
        except OSError as error:
            report.warn(name, UNAVAILABLE, f"no response to {shown}: {explain(error)}", FORWARD_ALL)
            continue
        hop = hop_of(response)
        if response.status == OK and isinstance(response.json, dict):
            with report.check(name) as passed:
                passed.message = f"{shown} responds"
        else:
            message = f"{hop_name(response)} responded with {response.status} to {shown}"
            report.warn(name, response.code or UNAVAILABLE, message, FORWARD_ALL)
    return hop


def check_events(connector: Connector, admin: AdminClient, report: CheckReport, hop: Hop) -> None:
    """Check whether …/events delivers an event when it is sent. Raises CheckFailed.

    `hop` responded on other paths: a proxy that buffers may hold back even the head of this response.
    """
    path = connector.target.endpoint("events")
    try:
        with connector.open(RECEIVE_TIMEOUT_SECONDS) as sock:
            EventStreamCheck(connector, admin, sock, path, hop).check(report)
    except OSError as error:
        report.warn("events", UNAVAILABLE, f"no response to {path}: {explain(error)}", FORWARD_ALL)


class EventStreamCheck:
    """One request for an event stream."""

    def __init__(
        self, connector: Connector, admin: AdminClient, sock: socket.socket, path: str, hop: Hop
    ) -> None:
        self._connector = connector
        self._admin = admin
        self._sock = sock
        self._path = path
        self._hop = hop
        self._channel = new_channel()

    def check(self, report: CheckReport) -> None:
        """Publish a message, and wait for its event. Raises CheckFailed, or OSError if there is no response."""
        response = self._request()
        if response is not None and not _is_event_stream(response):
            whole = read_response(response)
            message = f"{hop_name(whole)} responded with {whole.status} to {self._path}"
            report.warn("events", whole.code or UNAVAILABLE, message, FORWARD_ALL)
            return
        matched = publish(self._admin, self._connector.target.instance, self._channel)
        if not matched and response is None:
            raise TimeoutError
        with report.check("events") as passed:
            self._receive(response)
            passed.message = f"{self._path} delivers a message when it is published"

    def _request(self) -> HTTPResponse | None:
        """Return the head of the response, None if it does not arrive in time: a proxy may hold back even that."""
        headers = {
            **self._connector.headers(),
            "Accept": "text/event-stream",
            "Accept-Encoding": "gzip, deflate",
        }
        try:
            return send_request(self._sock, "GET", f"{self._path}?channel={self._channel}", headers)
        except TimeoutError:
            return None

    def _receive(self, response: HTTPResponse | None) -> None:
        fields = {} if response is None else head_fields(response)
        hop = self._hop if response is None else hop_of(Response(response.status, "", fields))
        remedy = choose(DISABLE_BUFFERING, hop)
        if "content-encoding" in fields:
            message = f"{hop.value} compresses the event stream, which delays events"
            raise CheckFailed("response_compressed", message, remedy)
        try:
            self._read_until_event(self._sock.recv if response is None else response.read1)
        except OSError as error:
            message = (
                f"{hop.value} buffers the event stream: none arrived within {RECEIVE_TIMEOUT_SECONDS:g} s"
            )
            raise CheckFailed("response_buffered", message, remedy) from error

    def _read_until_event(self, read: Callable[[int], bytes]) -> None:
        deadline = time.monotonic() + RECEIVE_TIMEOUT_SECONDS
        received = b""
        while self._channel.encode() not in received:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            self._sock.settimeout(remaining)
            data = read(CHUNK_SIZE)
            if not data:
                raise ConnectionResetError
            received = received[-CHUNK_SIZE:] + data


def _is_event_stream(response: HTTPResponse) -> bool:
    return response.status == OK and (response.getheader("content-type") or "").startswith(
        "text/event-stream"
    )
