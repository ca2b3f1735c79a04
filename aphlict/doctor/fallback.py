"""The endpoints besides the WebSocket: status, event streams, long polling."""

import socket
import time
from collections.abc import Callable
from http.client import HTTPResponse

from aphlict.doctor.admin_client import AdminClient
from aphlict.doctor.connector import (
    Connector,
    Response,
    explain,
    head_fields,
    read_response,
    send_request,
)
from aphlict.doctor.delivery import RECEIVE_TIMEOUT_SECONDS, new_channel, publish
from aphlict.doctor.proxies import DISABLE_BUFFERING, DISABLE_BUFFERING_ANYWHERE, Hop, hop_name, hop_of
from aphlict.doctor.report import CheckFailed, CheckReport

OK = 200
CHUNK_SIZE = 16 * 1024
UNAVAILABLE = "endpoint_unavailable"
FORWARD_ALL = "forward all paths below it, not only upgrades (docs/proxies.md)"


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
        remedy = DISABLE_BUFFERING.get(hop, DISABLE_BUFFERING_ANYWHERE)
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
