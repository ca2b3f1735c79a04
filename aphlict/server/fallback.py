"""For browsers whose network allows no WebSocket: `…/events` and `…/poll` on the client port."""

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from aphlict.config.settings import QUERY_CHANNELS_PER_COMMAND
from aphlict.core.hub import Hub
from aphlict.core.subscriptions import Receiver, Subscriber
from aphlict.errors import (
    AphlictError,
    BadRequest,
    CommandError,
    Forbidden,
    InvalidToken,
    MethodNotAllowed,
    NameTooLong,
    OriginForbidden,
    SubscriptionsFull,
)
from aphlict.protocol import http
from aphlict.protocol.http import Request
from aphlict.server import sse as events
from aphlict.server.auth import GrantTimer, verify_request
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.listen_request import ListenRequest, parse_listen_request
from aphlict.server.long_poll import Poll
from aphlict.server.origin_check import check_page, cors
from aphlict.server.sse import EventStream
from aphlict.server.timer_wheel import HasDeadline
from aphlict.tokens.grant import Grant

log = logging.getLogger(__name__)

METHODS = "GET, OPTIONS"
EXPIRES = "Aphlict-Token-Expires"  # seconds that the token of the request still holds
PREFLIGHT = {
    "Access-Control-Allow-Methods": METHODS,
    "Access-Control-Allow-Headers": "Authorization, Last-Event-ID, Cache-Control, Content-Type",
    "Access-Control-Max-Age": "86400",
}


class Listener(Receiver, Protocol):
    """What serves one request: the hub sends to it, and it answers."""

    subscriber: Subscriber | None  # None once it has answered
    term: HasDeadline | None

    def start(self, subscriber: Subscriber, wish: ListenRequest, now: float, /) -> None:
        """Begin to answer."""


Maker = Callable[[HTTPConnection, Request, dict[str, str]], Listener]


class Fallback:
    """Serves event streams and polls; they count and are limited as the WebSockets are."""

    def __init__(self, hub: Hub, clock: Callable[[], float]) -> None:
        self._hub = hub
        self._clock = clock
        self._encoder = events.Encoder(hub)
        self._endpoints = {"events": self._make_stream, "poll": self._make_poll}

    def serve(self, connection: HTTPConnection, request: Request) -> bool:
        """Answer a request, now or later; False where its path does not end with one of the endpoints."""
        make = self._endpoints.get(request.path.rpartition("/")[2])
        if make is None:
            return False
        try:
            check_page(connection, request)
        except OriginForbidden as refusal:
            _refuse(connection, request, refusal)
            return True
        keep = request.keeps_alive()
        if request.method == "OPTIONS":
            fields = {**cors(connection, request), **PREFLIGHT}
            connection.respond(http.response(204, fields, keep_alive=keep), keep_alive=keep)
        elif request.method == "GET":
            self._listen(connection, request, make)
        else:
            _refuse(connection, request, MethodNotAllowed(request.method, request.path, METHODS))
        return True

    def _listen(self, connection: HTTPConnection, request: Request, make: Maker) -> None:
        fields: dict[str, str] = {}
        try:
            wish = parse_listen_request(request)
            connection.charge(len(wish.channels) // QUERY_CHANNELS_PER_COMMAND)
            grant = self._admit(connection, request, wish)
            if grant is not None:
                fields = self._expiry(grant)
                grant.check_channels(wish.channels)
            listener = make(connection, request, {**cors(connection, request), **fields})
            subscriber = self._subscribe(wish, listener)
        except (InvalidToken, Forbidden) as error:
            _refuse(connection, request, error, fields)
            return
        except (BadRequest, NameTooLong, CommandError, SubscriptionsFull) as error:
            _refuse(connection, request, error, fields)
            return
        log.debug("[%d] %s listens: %s", connection.number, connection.address, wish)
        listener.start(subscriber, wish, self._clock())
        if grant is not None and listener.subscriber is not None:
            listener.term = GrantTimer(connection, self._hub, grant)

    def _admit(self, connection: HTTPConnection, request: Request, wish: ListenRequest) -> Grant | None:
        keys = connection.port.keys
        if keys is None:
            return None
        return verify_request(connection, keys, request, wish.instance, self._hub.epoch + self._clock())

    def _expiry(self, grant: Grant) -> dict[str, str]:
        """The fields of an answer that let the page know how long its token holds."""
        seconds = grant.seconds_left(self._hub.epoch + self._clock())
        return {EXPIRES: str(seconds), "Access-Control-Expose-Headers": EXPIRES}

    def _subscribe(self, wish: ListenRequest, listener: Listener) -> Subscriber:
        subscriber = self._hub.join(wish.instance, listener)
        try:
            self._hub.subscribe(subscriber, wish.channels)
        except AphlictError:
            self._hub.leave(subscriber)
            raise
        return subscriber

    def _make_stream(self, connection: HTTPConnection, _request: Request, fields: dict[str, str]) -> Listener:
        return EventStream(connection, self._hub, self._encoder, fields)

    def _make_poll(self, connection: HTTPConnection, request: Request, fields: dict[str, str]) -> Listener:
        return Poll(connection, self._hub, self._clock, fields, keep=request.keeps_alive())


def _refuse(
    connection: HTTPConnection,
    request: Request,
    error: AphlictError,
    fields: Mapping[str, str] = {},
) -> None:
    log.debug("[%d] refused a request of %s: %s", connection.number, connection.address, error)
    connection.count(error)
    fields = {**cors(connection, request), **fields}
    connection.respond(http.error_response(error, fields, is_head=request.method == "HEAD"), keep_alive=False)
