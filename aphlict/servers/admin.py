"""The admin server: publishing, and the status page."""

import logging
from collections.abc import Callable
from typing import Any

from aphlict.errors import AphlictError
from aphlict.hub import Hub
from aphlict.message import parse
from aphlict.net.connection import Connection
from aphlict.net.requests import RequestApplication, RequestConnection
from aphlict.servers.http import DirectExchange, Exchange, HandOver
from aphlict.wire.handshake import Request

log = logging.getLogger(__name__)

DEFAULT_INSTANCE = "default"
NODE_HEADER = "x-aphlict-node"  # in which another node names itself


class NoSuchPath(AphlictError):
    """A request for a path that the server does not have."""

    http_status = 404


class Admin:
    """Answers the requests of an admin port.

    `clock` gives monotonic seconds; `more_status` what the status page says beside the hub's own figures;
    `on_node` is told the fingerprint of another node that asks for the status.
    """

    def __init__(
        self,
        hub: Hub,
        clock: Callable[[], float],
        more_status: Callable[[], dict[str, Any]],
        on_node: Callable[[str], None],
    ) -> None:
        self._hub = hub
        self._clock = clock
        self._more_status = more_status
        self._on_node = on_node

    @property
    def body_limit(self) -> int:
        """Bytes that a published body may have."""
        return self._hub.limits.limits_body

    def handle(self, exchange: Exchange, /) -> None:
        """Answer one request."""
        if exchange.path == "/":
            self._on_root(exchange)
        elif exchange.path in ("/status/", "/status"):
            self._on_status(exchange)
        else:
            raise NoSuchPath(
                "there is no such page: POST / publishes, GET /status/ tells how the server does"
            )

    def _on_root(self, exchange: Exchange) -> None:
        if exchange.method == "POST":
            exchange.answer_json(200, self._publish(exchange))
        else:
            _refuse_method(exchange, "POST")

    def _on_status(self, exchange: Exchange) -> None:
        if exchange.method in ("GET", "HEAD"):
            if sender := exchange.headers.get(NODE_HEADER):
                self._on_node(sender)
            status = self._hub.status(_instance(exchange), self._clock())
            exchange.answer_json(200, {**status, **self._more_status()})
        else:
            _refuse_method(exchange, "GET, HEAD")

    def _publish(self, exchange: Exchange) -> dict[str, Any]:
        limit = self._hub.limits.limits_name
        messages, many = parse(exchange.body, _instance(exchange), name_limit=limit)
        now = self._clock()
        receipts = [self._hub.publish(message, now).as_dict() for message in messages]
        for message, receipt in zip(messages, receipts, strict=True):
            log.debug("published %s to %s: %s", message.unique_id, message.channels, receipt)
        if many:
            return {"fingerprint": self._hub.fingerprint, "receipts": receipts}
        return {"fingerprint": self._hub.fingerprint, **receipts[0]}


def _instance(exchange: Exchange) -> str:
    return exchange.argument("instance") or DEFAULT_INSTANCE


def _refuse_method(exchange: Exchange, allowed: str) -> None:
    sentence = f"{exchange.method} is not for {exchange.path}: use {allowed}"
    exchange.answer_json(405, {"error": sentence}, {"Allow": allowed})


class Publishers(RequestApplication):
    """The application of the admin ports: requests go to Admin, those in chunks by way of Tornado."""

    def __init__(self, admin: Admin, in_chunks: HandOver) -> None:
        self._admin = admin
        self._in_chunks = in_chunks

    @property
    def body_limit(self) -> int:
        """Bytes that a published body may have."""
        return self._admin.body_limit

    def on_whole_request(self, connection: RequestConnection, request: Request, body: bytes, /) -> None:
        """Answer a request."""
        DirectExchange(connection, request, body).handle_with(self._admin)

    def on_request(self, connection: Connection, _request: Request, rest: bytes, /) -> None:
        """Leave a body in chunks to Tornado."""
        self._in_chunks.take(connection, rest)
