"""Subscriptions over plain HTTP: the request, and the base of event streams and long polls."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from msgspec import Struct

from aphlict import log_events
from aphlict.core.endings import Client
from aphlict.core.hub import Hub
from aphlict.core.message import Delivery
from aphlict.core.metrics import Cause, Transport
from aphlict.core.subscriptions import Subscriber
from aphlict.errors import AphlictError, BadRequest
from aphlict.protocol.commands import MAX_AFTER
from aphlict.protocol.http import Request, instance_from_path, parse_query
from aphlict.server.auth import GrantTimer, client_of
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.timer_wheel import HasDeadline
from aphlict.tokens.grant import Grant

log = logging.getLogger(__name__)

MAX_WAIT, DEFAULT_WAIT = 60.0, 25.0  # seconds


class SubscribeRequest(Struct, frozen=True):
    """The channels of an instance, the resume tokens or uniqueIDs to continue after, and how long a poll waits."""

    instance: str
    channels: tuple[str, ...]
    after: tuple[str, ...]
    wait: float  # seconds


def parse_subscribe_request(request: Request) -> SubscribeRequest:
    """Parse the target and the fields of a request. Raises BadRequest."""
    path, _, query = request.target.partition("?")
    arguments = parse_query(query)
    channels = tuple(dict.fromkeys(arguments.get("channel", ())))
    if not channels:
        raise BadRequest("the query names no channel: ?channel=A&channel=B is expected")
    after = [*arguments.get("after", ()), request.headers.get("last-event-id", "")]
    return SubscribeRequest(
        instance=instance_from_path(path.rpartition("/")[0]),
        channels=channels,
        after=_split_names(after),
        wait=_parse_wait(arguments.get("wait", [""])[-1]),
    )


def _split_names(values: list[str]) -> tuple[str, ...]:
    """Return the names in values, each of which is a name or a comma-separated list. As a uniqueID may contain a
    comma, such a value counts as both. Only the last MAX_AFTER of each kind count."""
    names = dict.fromkeys(name for value in values for name in value.split(",") if name)
    lists = [value for value in values if "," in value]
    return tuple(dict.fromkeys([*list(names)[-MAX_AFTER:], *lists[-MAX_AFTER:]]))


def _parse_wait(text: str) -> float:
    try:
        wait = float(text or DEFAULT_WAIT)
    except ValueError as error:
        raise BadRequest("'wait' must be a number of seconds from 0 to 60") from error
    if not 0 <= wait <= MAX_WAIT:
        raise BadRequest("'wait' must be a number of seconds from 0 to 60")
    return wait


class HTTPSubscriber(HasDeadline, ABC):
    """Receives from the hub and responds on a connection: the base of EventStream and LongPoll.

    `fields` belong into the head of the response.
    """

    __slots__ = ("_connection", "_fields", "_grant_timer", "_hub", "subscriber")

    transport: ClassVar[Transport]

    def __init__(self, connection: HTTPConnection, hub: Hub, fields: dict[str, str]) -> None:
        super().__init__()
        self._connection = connection
        self._hub = hub
        self._fields = fields
        self._grant_timer: GrantTimer | None = None
        self.subscriber: Subscriber | None = None  # None before `subscribe`, and once the response has ended

    def subscribe(self, request: SubscribeRequest, grant: Grant | None, now: float) -> None:
        """Subscribe, and start the response. Raises NameTooLong, CommandError or SubscriptionsFull before that."""
        subscriber = self._hub.join(request.instance, self)
        try:
            self._hub.subscribe(subscriber, request.channels)
        except AphlictError:
            self._hub.leave(subscriber)
            raise
        connection = self._connection
        log.debug(log_events.SUBSCRIBE_REQUESTED, connection.number, connection.address, request)
        self.subscriber = subscriber
        self._connection.port.server.counters.on_opened(self.transport)
        if grant is not None:
            self._grant_timer = GrantTimer(self._connection, self._hub, grant)
        self._start(subscriber, request, now)

    @abstractmethod
    def _start(self, subscriber: Subscriber, request: SubscribeRequest, now: float) -> None:
        """Call the connection's `stream`, and start the replay."""

    @abstractmethod
    def deliver(self, delivery: Delivery, /) -> None:
        """Part of the hub's Receiver."""

    @abstractmethod
    def deliver_all(self, deliveries: Iterator[Delivery], /) -> None:
        """Part of the hub's Receiver."""

    @property
    def holder(self) -> HTTPConnection:
        """Part of the hub's Receiver."""
        return self._connection

    def on_close(self, _reason: str, cause: Cause, /) -> None:
        """Part of the connection's Responder. A poll that was answered has ended before."""
        if self.subscriber is not None:
            unsent = self._connection.write_buffer.unsent()
            ended = self._connection.port.server.ended
            ended.add(self._hub, self.subscriber, self._client, cause, unsent, time.monotonic())
        self._leave(cause)

    @property
    def _client(self) -> Client:
        return client_of(self._connection, self.transport, self.grant)

    @property
    def grant(self) -> Grant | None:
        """What the token of the client allows; None without a token."""
        return None if self._grant_timer is None else self._grant_timer.grant

    def _leave(self, cause: Cause) -> None:
        """End the subscription, and cancel all deadlines, which would keep the object in memory."""
        subscriber, self.subscriber = self.subscriber, None
        if subscriber is None:
            return
        self._hub.leave(subscriber)
        server = self._connection.port.server
        server.counters.on_closed(self.transport, cause)
        timers = server.timers
        timers.cancel(self)
        if self._grant_timer is not None:
            timers.cancel(self._grant_timer)
