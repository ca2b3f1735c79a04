"""The admin ports: publishing, and the status of the node."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import cache, partial
from importlib import import_module
from typing import Any, Protocol

from msgspec import Raw
from msgspec.json import encode

from aphlict.config.settings import Limits
from aphlict.core.hub import MessageReceipt
from aphlict.core.message import (
    TRACE_KEY,
    Message,
    check_name,
    decode_body,
    parse_message,
    read_traceparent,
)
from aphlict.core.metrics import Histogram, Samples
from aphlict.core.overview import OVERVIEW_PATH
from aphlict.core.sequencer import MAX_NUMBER, Greeting, Report
from aphlict.core.trace_report import TRACE_PATH, TraceAnswer, TraceQuery
from aphlict.core.trace_text import describe_trace
from aphlict.errors import AphlictError, BadRequest, MethodNotAllowed, NotFound, Overloaded, TooManyTraces
from aphlict.log_events import PUBLISHED, REQUEST_FAILED, trace_of
from aphlict.protocol.http import (
    DEFAULT_INSTANCE,
    JSON,
    NODE_FIELD,
    ORIGIN_FIELD,
    PRIVATE,
    Request,
    parse_query,
)
from aphlict.server.console_files import is_console, load_console
from aphlict.server.http_connection import HTTPConnection

log = logging.getLogger(__name__)

METRICS_PATH = "/metrics"
MAX_TRACES = 8  # at a time, of which one is computed
DATA = {**JSON, "Cache-Control": "no-store", **PRIVATE}
MAX_SLICE_SECONDS = 0.005  # of parsing a list, after which other work of the loop has its turn
NODE_FIELD_KEY, ORIGIN_FIELD_KEY = NODE_FIELD.lower(), ORIGIN_FIELD.lower()
MAX_NODE_FINGERPRINT = 64  # characters

_GREETING = re.compile(r"([A-Za-z0-9]{8}) ([0-9]{1,15}) ([0-9]{1,12}(?:\.[0-9]{1,6})?)")


class NodeAPI(Protocol):
    """The node behind an admin port. It calls `done` once, now or later."""

    def publish(self, messages: list[Message], done: Callable[[list[MessageReceipt]], None], /) -> None:
        """Publish in this order. `done` receives a receipt for each message; for fewer if the rest was refused
        because of `limits.delivery_queue`. Raises Overloaded if none was accepted."""

    def status(self, instance: str, done: Callable[[dict[str, Any]], None], /) -> None:
        """Report the statistics of the node and of an instance."""

    def metrics(self, done: Callable[[Samples], None], /) -> None:
        """Report the metrics of the node."""

    def overview(self) -> Coroutine[Any, Any, bytes]:
        """Return the overview of the node as JSON."""

    def trace(self, query: TraceQuery, /, *, asks_peers: bool) -> Coroutine[Any, Any, TraceAnswer]:
        """Find out what became of a message, at the node and, with `asks_peers`, at its peers."""

    def on_peer_announced(self, fingerprint: str, /) -> None:
        """Another node, with this fingerprint, has requested the status."""

    def on_greeting(self, greeting: Greeting, /) -> None:
        """Another node has sent a request."""

    def report(self) -> dict[str, Report]:
        """Report to another node how far this one is with each origin."""


Renderer = Callable[[Samples, str], tuple[str, bytes]]  # of samples, for a value of `Accept`


class AdminHandler:
    """Handler of the admin ports."""

    def __init__(
        self, node: NodeAPI, fingerprint: str, limits: Callable[[], Limits], publish_times: Histogram
    ) -> None:
        """`publish_times` counts the time of each POST."""
        self._node = node
        self._fingerprint = fingerprint
        self._limits = limits
        self._publish_times = publish_times
        # Requests whose responses need several turns of the loop, and those of them that are traces.
        self._tasks: set[asyncio.Task[None]] = set()
        self._traces: set[asyncio.Task[None]] = set()
        self._console = load_console()
        self._routes = {
            "/status": self._on_status,
            "/status/": self._on_status,
            METRICS_PATH: self._on_metrics,
            TRACE_PATH: self._on_trace,
            OVERVIEW_PATH: self._on_overview,
        }

    @property
    def max_body_size(self) -> int:
        """Bytes of a request's body."""
        return self._limits().body

    def check_head(self, connection: HTTPConnection, request: Request, /) -> None:
        """Check the right to send the request. Raises CrossSiteRequest, HostNotAllowed or Unauthorized."""
        path = request.path
        connection.port.access.check(
            request.headers,
            connection.local_address,
            is_console=path == OVERVIEW_PATH or is_console(path),
            reads_metrics=path == METRICS_PATH,
        )

    def on_request(self, connection: HTTPConnection, request: Request, body: bytes, /) -> None:
        """Respond to a request, now or later. Raises AphlictError."""
        path = request.path
        if path == "/":
            if request.method != "POST":
                raise MethodNotAllowed(request.method, path, "POST")
            self._on_publish(connection, request, body)
            return
        respond = self._console.respond if is_console(path) else self._routes.get(path)
        if respond is None:
            raise NotFound(
                "not found: use POST / to publish, GET /status/ for the status, GET /overview for an overview,"
                " GET /metrics for the metrics, GET /trace to trace a message, or open /console in a browser"
            )
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(request.method, path, "GET, HEAD")
        respond(connection, request)

    def _on_metrics(self, connection: HTTPConnection, request: Request) -> None:
        def on_samples(samples: Samples) -> None:
            accept = request.headers.get("accept", "")
            kind, body = load_renderer()(samples, accept)
            connection.respond_to(request, 200, {**DATA, "Content-Type": kind}, body)

        self._node.metrics(lambda samples: connection.call(request, on_samples, samples))

    def _on_trace(self, connection: HTTPConnection, request: Request) -> None:
        """Trace a message. Another node, which asks all others itself, receives what this one knows."""
        query = _trace_query(request)
        asks_peers = NODE_FIELD_KEY not in request.headers
        if len(self._traces) >= MAX_TRACES:
            raise TooManyTraces(f"{MAX_TRACES} other traces are being computed, one after the other")

        async def trace() -> bytes:
            found = await self._node.trace(query, asks_peers=asks_peers)
            if asks_peers:
                found.text = describe_trace(found)
            return encode(found)

        task = self._respond_later(connection, request, trace())
        self._traces.add(task)
        task.add_done_callback(self._traces.discard)

    def _on_overview(self, connection: HTTPConnection, request: Request) -> None:
        self._respond_later(connection, request, self._node.overview())

    def _respond_later(
        self, connection: HTTPConnection, request: Request, work: Coroutine[Any, Any, bytes]
    ) -> "asyncio.Task[None]":
        """Respond with the JSON that `work` returns. Returns the task."""

        async def respond() -> None:
            try:
                body = await work
            except Exception:
                log.exception(REQUEST_FAILED, request.method, request.path)
                connection.reject(AphlictError("internal error; see the log of the server"), request)
            else:
                connection.respond_to(request, 200, DATA, body)

        task = asyncio.get_running_loop().create_task(respond())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _on_status(self, connection: HTTPConnection, request: Request) -> None:
        if fingerprint := request.headers.get(NODE_FIELD_KEY):
            self._node.on_peer_announced(fingerprint)
        instance = check_name(_instance(request), "the instance", self._limits().name)
        is_node = self._read_greeting(request)

        def on_status(status: dict[str, Any]) -> None:
            now = round(time.time() * 1000)  # to compare the clocks of nodes
            members = {"origins": self._node.report()} if is_node else {}
            body = encode({**status, "time": now, **members})
            connection.respond_to(request, 200, {**JSON, **PRIVATE}, body)

        self._node.status(instance, on_status)

    def _read_greeting(self, request: Request) -> bool:
        """Return whether the sender is a node that numbers its messages, and note what it says about itself."""
        value = request.headers.get(ORIGIN_FIELD_KEY)
        match = None if value is None else _GREETING.fullmatch(value)
        if match is None:
            return False
        fingerprint = request.headers.get(NODE_FIELD_KEY, "")[:MAX_NODE_FINGERPRINT]
        self._node.on_greeting(
            Greeting(fingerprint, match[1], min(int(match[2]), MAX_NUMBER), float(match[3]))
        )
        return True

    def _on_publish(self, connection: HTTPConnection, request: Request, body: bytes) -> None:
        begin = time.monotonic()
        limits, instance = self._limits(), _instance(request)
        objects, is_batch = decode_body(body, instance, limits)
        from_node = self._read_greeting(request)
        trace = request.headers.get(TRACE_KEY)
        if trace is not None:
            trace = None if from_node else read_traceparent(trace)
        if is_batch:
            parse = partial(
                parse_message, instance=instance, limits=limits, from_node=from_node, traceparent=trace
            )
            self._parse_batch(connection, request, objects, parse, begin)
        else:
            message = parse_message(
                objects[0], instance, limits=limits, from_node=from_node, traceparent=trace
            )
            self._publish(connection, request, [message], begin, is_batch=False)

    def _parse_batch(
        self,
        connection: HTTPConnection,
        request: Request,
        objects: Iterable[dict[str, Raw]],
        parse: Callable[[dict[str, Raw]], Message],
        begin: float,
    ) -> None:
        """Parse the messages of a list in slices, and then publish them: none if one is invalid."""
        remaining = iter(objects)
        messages: list[Message] = []

        def parse_slice() -> None:
            until = time.monotonic() + MAX_SLICE_SECONDS
            for fields in remaining:
                messages.append(parse(fields))
                if time.monotonic() > until:
                    asyncio.get_running_loop().call_soon(connection.call, request, parse_slice)
                    return
            self._publish(connection, request, messages, begin, is_batch=True)

        parse_slice()

    def _publish(
        self,
        connection: HTTPConnection,
        request: Request,
        messages: list[Message],
        begin: float,
        *,
        is_batch: bool,
    ) -> None:
        def on_published(receipts: list[MessageReceipt]) -> None:
            results = [receipt.as_dict() for receipt in receipts]
            if log.isEnabledFor(logging.DEBUG):
                for message, result in zip(messages, results, strict=False):
                    trace = trace_of(message.traceparent)
                    log.debug(PUBLISHED, message.unique_id, message.channels, result, trace)
            self._publish_times.observe(time.monotonic() - begin)
            body = {"fingerprint": self._fingerprint, **({"receipts": results} if is_batch else results[0])}
            if len(results) == len(messages):
                connection.respond_to(request, 200, JSON, encode(body))
            else:
                error = Overloaded(f"the queue is full: {len(results)} of {len(messages)} were accepted")
                connection.reject(error, request, members=body)

        self._node.publish(messages, on_published)


@cache
def load_renderer() -> Renderer:
    """Import what makes the page of metrics, once: only a server needs it. It takes 10 ms, and the process may lose
    the right to read it."""
    render: Renderer = import_module("aphlict.server.metrics_page").render
    return render


def _instance(request: Request) -> str:
    query = request.target.partition("?")[2]
    if not query:
        return DEFAULT_INSTANCE
    values = parse_query(query).get("instance")
    return (values[-1] if values else "") or DEFAULT_INSTANCE


def _trace_query(request: Request) -> TraceQuery:
    """Return what to trace. Raises BadRequest."""
    values = parse_query(request.target.partition("?")[2])
    last = {name: values[name][-1] for name in ("id", "channel", "user", "instance") if name in values}
    query = TraceQuery(
        last.get("id", ""),
        last.get("channel", ""),
        last.get("user", ""),
        last.get("instance", ""),
        connections=values.get("connections", ["0"])[-1] not in ("", "0"),
    )
    if not (query.unique_id or query.channel or query.user):
        raise BadRequest(
            "the query has to name a message, a channel or a user: ?id=ID, ?channel=C or ?user=SUB"
        )
    return query
