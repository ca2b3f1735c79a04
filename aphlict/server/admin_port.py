"""The admin server: publishing, and the status page."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Raw

from aphlict.config.settings import Limits
from aphlict.core.hub import Receipt
from aphlict.core.message import Message, check_name, decode_body, parse_message
from aphlict.errors import MethodNotAllowed, NotFound, Overloaded
from aphlict.protocol.http import DEFAULT_INSTANCE, NODE_FIELD, PRIVATE, Request
from aphlict.server.exchange import Exchange
from aphlict.server.http_connection import HTTPConnection

log = logging.getLogger(__name__)

TURN = 0.005  # seconds of reading a list after which other work of the loop has its turn


class NodeAPI(Protocol):
    """What publishers and those who ask for the status speak to. Answers may come later, and come once."""

    def publish(self, messages: list[Message], done: Callable[[list[Receipt]], None], /) -> None:
        """Publish these in turn; `done` takes a receipt for each, or for the first ones alone: then the others were
        not taken, as more waits than `limits.delivery_queue`. Raises Overloaded where none was."""

    def status(self, instance: str, done: Callable[[dict[str, Any]], None], /) -> None:
        """Tell how the node and this instance do."""

    def on_peer_announced(self, fingerprint: str, /) -> None:
        """Another node, of this fingerprint, has asked for the status."""


class Admin:
    """Answers the requests of an admin port."""

    def __init__(self, desk: NodeAPI, fingerprint: str, limits: Callable[[], Limits]) -> None:
        self._desk = desk
        self._fingerprint = fingerprint
        self._limits = limits

    @property
    def max_body_size(self) -> int:
        """Bytes that a published body may have."""
        return self._limits().body

    def handle(self, exchange: Exchange, /) -> None:
        """Answer one request."""
        if exchange.path == "/":
            self._on_root(exchange)
        elif exchange.path in ("/status/", "/status"):
            self._on_status(exchange)
        else:
            raise NotFound("there is no such page: POST / publishes, GET /status/ tells how the server does")

    def _on_root(self, exchange: Exchange) -> None:
        if exchange.method == "POST":
            self._publish(exchange)
        else:
            raise MethodNotAllowed(exchange.method, exchange.path, "POST")

    def _on_status(self, exchange: Exchange) -> None:
        if exchange.method in ("GET", "HEAD"):
            if sender := exchange.headers.get(NODE_FIELD.lower()):
                self._desk.on_peer_announced(sender)
            instance = check_name(_instance(exchange), "the instance", self._limits().name)
            self._desk.status(instance, lambda status: _tell_status(exchange, status))
        else:
            raise MethodNotAllowed(exchange.method, exchange.path, "GET, HEAD")

    def _publish(self, exchange: Exchange) -> None:
        limits, instance = self._limits(), _instance(exchange)
        objects, many = decode_body(exchange.body, instance, limits)
        if many:
            _Parsing(objects, instance, limits, self._accept_list).handle(exchange)
        else:
            self._accept(exchange, [parse_message(objects[0], instance, limits=limits)], many=False)

    def _accept_list(self, exchange: Exchange, messages: list[Message]) -> None:
        self._accept(exchange, messages, many=True)

    def _accept(self, exchange: Exchange, messages: list[Message], *, many: bool) -> None:
        """Publish what has been read, and answer with the receipts."""

        def on_published(receipts: list[Receipt]) -> None:
            told = [receipt.as_dict() for receipt in receipts]
            if log.isEnabledFor(logging.DEBUG):
                _trace(messages, told)
            answer = {"fingerprint": self._fingerprint, **({"receipts": told} if many else told[0])}
            if len(told) < len(messages):
                exchange.fail(
                    Overloaded(f"too much is waiting: {len(told)} of {len(messages)} were taken"), answer
                )
            else:
                exchange.answer_json(200, answer)

        self._desk.publish(messages, on_published)


class _Parsing:
    """Reads the messages of a list in slices, between which other work of the loop has its turn; publishes them once
    all have been read."""

    def __init__(
        self,
        objects: list[dict[str, Raw]],
        instance: str,
        limits: Limits,
        publish: Callable[[Exchange, list[Message]], None],
    ) -> None:
        self._objects = iter(objects)
        self._instance = instance
        self._limits = limits
        self._publish = publish
        self._messages: list[Message] = []

    def handle(self, exchange: Exchange, /) -> None:
        """Read the next ones. Part of the interface of Handler: what is raised becomes the answer."""
        until = time.monotonic() + TURN
        for fields in self._objects:
            self._messages.append(parse_message(fields, self._instance, limits=self._limits))
            if time.monotonic() > until:
                asyncio.get_running_loop().call_soon(exchange.handle_with, self)
                return
        self._publish(exchange, self._messages)


def _trace(messages: list[Message], receipts: list[dict[str, Any]]) -> None:
    for message, receipt in zip(messages, receipts, strict=False):
        log.debug("published %s to %s: %s", message.unique_id, message.channels, receipt)


def _tell_status(exchange: Exchange, status: dict[str, Any]) -> None:
    """`time`: so that the clocks of several nodes can be compared."""
    exchange.answer_json(200, {**status, "time": round(time.time() * 1000)}, PRIVATE)


def _instance(exchange: Exchange) -> str:
    return exchange.argument("instance") or DEFAULT_INSTANCE


class AdminHandler:
    """Handler of the admin ports: checks their access, and passes requests to Admin."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    @property
    def max_body_size(self) -> int:
        """Bytes that a published body may have."""
        return self._admin.max_body_size

    def check_head(self, connection: HTTPConnection, request: Request, /) -> None:
        """Raise CrossSiteRequest, HostNotAllowed or Unauthorized."""
        connection.port.access.check(request.headers, connection.local_address)

    def on_request(self, connection: HTTPConnection, request: Request, body: bytes, /) -> None:
        """Respond to a request."""
        Exchange(connection, request, body, keep=request.keeps_alive()).handle_with(self._admin)
