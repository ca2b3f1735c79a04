"""A node: ports, hub and peers of one process, and their start, reload and stop."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aphlict import log_events
from aphlict.cluster.relay import Relay
from aphlict.config.files import Read, read_file
from aphlict.config.settings import ServerSettings, Settings
from aphlict.core.hub import Hub, MessageReceipt
from aphlict.core.message import Message, random_name
from aphlict.core.metrics import (
    DELIVERY,
    PUBLISH,
    Histogram,
    Samples,
    client_samples,
    merge,
    node_samples,
    single,
)
from aphlict.core.overview import SAMPLE_INTERVAL, ProcessOverview, RecentEvents
from aphlict.core.sequencer import Greeting, Report
from aphlict.core.stats import SubscriberStats
from aphlict.core.trace_report import NodeReport, TraceAnswer, TraceQuery, answer, merge_processes
from aphlict.core.version_vector import new_origin_name
from aphlict.protocol.websocket import TRY_AGAIN_LATER
from aphlict.server.admin_port import AdminHandler
from aphlict.server.auth import Credentials
from aphlict.server.client_port import ClientHandler, NodeState
from aphlict.server.http_connection import Handler
from aphlict.server.limits import capacity_status, max_clients
from aphlict.server.overview_maker import OverviewMaker
from aphlict.server.server import Port, Server
from aphlict.server.survey import Surveyor
from aphlict.server.tracer import Tracer
from aphlict.workers.edge_requests import METRICS, OVERVIEW, STATS, TRACE, EdgeSamples, EdgeStats
from aphlict.workers.edge_side import HubConnector, NoForwarder
from aphlict.workers.hub_side import SWEEP_INTERVAL, EdgePool, total

log = logging.getLogger(__name__)

FINGERPRINT_SIZE = 16
HOUSEKEEPING_INTERVAL = 5.0  # seconds between two sweeps of the hub
MAX_TURN = 0.01  # seconds of publishing after which other work of the loop has its turn
FLUSH_TIMEOUT = 2.0  # seconds in which queued messages are sent to peers when the node stops
JOIN_TIMEOUT = 10.0  # seconds that a new edge waits for the history before it accepts clients without it
EDGES_TIMEOUT = 3.0  # seconds that a new hub waits for its edges, and for the history that they have
HUB_TIMEOUT = 5.0  # seconds without a hub after which an edge reports ERROR


def ports_of(settings: Settings, sockets: Sequence[Sequence[socket.socket]]) -> list[Port]:
    """All ports of a server; `sockets[i]` are bound and listening for `settings.servers[i]`."""
    return [Port(server, each) for server, each in zip(settings.servers, sockets, strict=True)]


class Node:
    """One process of a node: all of it, or with several `workers` its hub or one of its edges.

    | process | ports | has |
    | --- | --- | --- |
    | all of it | all | peers |
    | hub | admin | peers, edges |
    | edge | client | a hub connection, a copy of the history |

    `edge_listener` makes it the hub: a listening Unix socket for edges. `hub_address` makes it an edge: that socket's
    address. `fingerprint` and `started` (monotonic seconds) are those of the whole node: a hub that is replaced
    keeps them. `credentials[i]` are those of `ports[i]`; `read` reads the files of peers. `events` are the
    last lines of the log.

    `start`, then `drain` (gracefully) or `abort` (immediately), each once, in a running loop.
    """

    def __init__(
        self,
        settings: Settings,
        ports: Sequence[Port],
        credentials: Sequence[Credentials],
        *,
        fingerprint: str | None = None,
        started: float | None = None,
        edge_listener: socket.socket | None = None,
        hub_address: str | None = None,
        read: Read = read_file,
        events: RecentEvents | None = None,
    ) -> None:
        self.settings = settings
        self._max_clients = max_clients(settings).connections  # asks the system: a fifth of a millisecond
        self.fingerprint = fingerprint or random_name(FINGERPRINT_SIZE)
        self._state = NodeState.STARTING
        self._started = time.monotonic() if started is None else started
        self._ports = ports
        self._edge_listener = edge_listener
        is_edge = hub_address is not None
        origin = None if is_edge else new_origin_name()
        self._relay = None if is_edge else Relay(settings.peers, self.fingerprint, read=read, origin=origin)
        self.hub = self._make_hub(origin)
        self._delivery_times, self._publish_times = Histogram(DELIVERY), Histogram(PUBLISH)
        self.hub.fan_out.on_delivered = self._on_delivered
        self._edges = EdgePool(self.hub, settings.processes) if edge_listener is not None else None
        self.server = Server(settings, ports, credentials, self._handlers(), self.hub.limit_counters)
        self._tracer = Tracer(self.hub, self.server)
        self._surveyor = Surveyor(self.hub, self.server, events or RecentEvents())
        self._overviews = OverviewMaker(self)
        self._link = None if hub_address is None else self._make_link(hub_address)

    def _make_hub(self, origin: str | None) -> Hub:
        hub = Hub(
            self.fingerprint,
            self._relay or NoForwarder(),
            self.settings.limits,
            self._schedule_work,
            time.monotonic(),
            origin,
        )
        hub.origins.is_complete = origin is not None and not self.settings.peers
        hub.sequencer.on_gap = self._on_gap
        return hub

    def _make_link(self, hub_address: str) -> HubConnector:
        answers = [
            METRICS.answered_by(self._measure_edge),
            OVERVIEW.answered_by(lambda _: self._surveyor.survey()),
            TRACE.answered_by(self._tracer.trace),
        ]
        return HubConnector(self.hub, hub_address, self._on_gap, dict(answers))

    def _handlers(self) -> Mapping[str, Handler]:
        handlers: dict[str, Handler] = {
            "client": ClientHandler(self.hub, time.monotonic, lambda: self.state),
            "admin": AdminHandler(self, self.fingerprint, lambda: self.settings.limits, self._publish_times),
        }
        return {name: handlers[name] for name in {port.settings.type for port in self._ports}}

    @property
    def state(self) -> NodeState:
        """The state that `…/status` reports to load balancers."""
        if self._state is NodeState.RUNNING and not self._is_healthy():
            return NodeState.ERROR
        return self._state

    def _is_healthy(self) -> bool:
        has_hub = self._link is None or time.monotonic() <= self.hub.in_sync_until + HUB_TIMEOUT
        return has_hub and self.server.is_healthy

    async def start(self) -> None:
        """Start; when this returns, every listener accepts connections."""
        if self._relay is not None:
            self._relay.start(self.hub)
            if self._edges is not None:
                self._edges.on_restored = self._relay.probe_now
        if self._edges is not None and self._edge_listener is not None:
            await self._edges.start(self._edge_listener)
            await self._edges.wait_until_complete(EDGES_TIMEOUT)
        if self._link is not None:
            self._link.start()
            await self._wait_for_history(self._link)
        self.server.start()
        self._start_housekeeping()
        self._state = NodeState.RUNNING
        log.info(
            log_events.LISTENING,
            self.fingerprint,
            log_events.Names(_describe(each.settings) for each in self._ports),
        )

    async def _wait_for_history(self, link: HubConnector) -> None:
        try:
            await asyncio.wait_for(link.up_to_date.wait(), JOIN_TIMEOUT)
        except asyncio.TimeoutError:
            log.error(log_events.HUB_SILENT)

    def _start_housekeeping(self) -> None:
        """Expire the history regularly, and follow changes of the system's clock."""

        def sweep() -> None:
            self.hub.epoch = time.time() - time.monotonic()
            self.hub.sweep(time.monotonic())

        sweep()
        self.server.every(HOUSEKEEPING_INTERVAL, sweep)
        if (edges := self._edges) is not None:
            self.server.every(SWEEP_INTERVAL, lambda: edges.sweep(time.monotonic()))
            self.server.every(HOUSEKEEPING_INTERVAL, edges.send_origins)
        self.server.every(SWEEP_INTERVAL, self._check_peers)
        if self._link is None:
            self._overviews.sample()
            self.server.every(SAMPLE_INTERVAL, self._overviews.sample)

    def _check_peers(self) -> None:
        """Give up messages of other nodes that are overdue, and find out whether all of them have been heard."""
        self.hub.sequencer.run(time.monotonic())
        origins, is_complete = self.hub.origins, self.hub.origins.is_complete
        if not is_complete and self._relay is not None:
            origins.is_complete = self._relay.has_heard_all(origins)
        if self._edges is not None:
            self._edges.flush()
            if origins.is_complete != is_complete:
                self._edges.send_origins()

    def _schedule_work(self) -> None:
        asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        if self.hub.run_slice():
            self._schedule_work()

    def _on_gap(self) -> None:
        """Disconnect all clients: when they resume, they learn that they may have missed messages."""
        self.hub.gaps += 1
        if self.hub.connections:
            log.warning(log_events.CLIENTS_RESUME, self.hub.connections)
        self.server.disconnect(TRY_AGAIN_LATER, "messages were missed", "gap")

    def _on_delivered(self, message: Message, accepted: float) -> None:
        message.delivered_at = now = time.monotonic()
        self._delivery_times.observe(now - accepted)

    def publish(self, messages: list[Message], done: Callable[[list[MessageReceipt]], None], /) -> None:
        """Publish messages in order, a long list in several turns of the loop. Raises Overloaded.

        `done` is called when every edge has the messages. It receives fewer receipts than there are messages if the
        load became too high: the messages without a receipt were not published.
        """
        if self._edges is None:
            self.hub.check_load()
            self._publish_here(messages, [], done)
        else:
            self.hub.check_load(self._edges.load)
            self._publish_to_edges(self._edges, messages, [], done)

    def _publish_here(
        self,
        messages: list[Message],
        receipts: list[MessageReceipt],
        done: Callable[[list[MessageReceipt]], None],
    ) -> None:
        """Publish the messages without a receipt in this process: as many as fit into a turn, then the next ones."""
        begin = now = time.monotonic()
        for message in messages[len(receipts) :]:
            if now > begin + MAX_TURN:
                asyncio.get_running_loop().call_soon(self._publish_here, messages, receipts, done)
                return
            if receipts and self.hub.load > 1:
                break
            receipts.append(self.hub.publish(message, now))
            now = time.monotonic()
        done(receipts)

    def _publish_to_edges(
        self,
        edges: EdgePool,
        messages: list[Message],
        receipts: list[MessageReceipt],
        done: Callable[[list[MessageReceipt]], None],
    ) -> None:
        """Publish the messages without a receipt: as many as the edges have room for, then the next ones."""
        now, begin = time.monotonic(), len(receipts)

        def on_published(more: list[MessageReceipt]) -> None:
            receipts.extend(more)
            if len(receipts) == len(messages) or edges.load > 1:
                done(receipts)
            else:
                loop = asyncio.get_running_loop()
                loop.call_soon(self._publish_to_edges, edges, messages, receipts, done)

        part = messages[begin : begin + edges.room(now)]
        edges.publish(part, now, on_published, waits_for_late=len(messages) == 1)

    def status(self, instance: str, done: Callable[[dict[str, Any]], None], /) -> None:
        """Collect the status of the node and of an instance, as the admin port responds it."""
        stats = self.hub.subscriber_stats(instance)
        if self._edges is None:
            done(self._status(instance, stats, {os.getpid(): stats.connections}))
            return

        def on_replies(replies: list[EdgeStats]) -> None:
            connections = {reply.pid: reply.figures.connections for reply in replies}
            done(self._status(instance, total(replies) + stats, connections))

        self._edges.ask(STATS, instance, on_replies)

    def _status(
        self, instance: str, stats: SubscriberStats, connections: Mapping[int, int]
    ) -> dict[str, Any]:
        """`connections` has the pid and the number of clients of each process that responded."""
        has_no_edge = not connections and self._state is NodeState.RUNNING
        return {
            **self.hub.status(instance, time.monotonic(), stats),
            "uptime": round((time.monotonic() - self._started) * 1000),
            "pid": os.getpid(),
            "state": (NodeState.ERROR if has_no_edge else self.state).value,
            **capacity_status(self.settings),
            "peers": [] if self._relay is None else self._relay.status(),
            "workers": [{"pid": pid, "connections": count} for pid, count in connections.items()],
        }

    def metrics(self, done: Callable[[Samples], None], /) -> None:
        """Collect the metrics of all processes."""
        own = self._measure()
        if self._edges is None:
            done(own)
        else:
            self._edges.request_metrics(lambda others: done(_with_edges(own, others)))

    async def _measure_edge(self, _argument: None) -> EdgeSamples:
        return EdgeSamples(self.server.process.name, self._measure())

    def _measure(self) -> Samples:
        """Return the metrics of this process."""
        parts = [client_samples(self.hub), self.server.samples(), self._delivery_times.samples()]
        if self._relay is not None:  # it is no edge
            parts += [node_samples(self.hub), self._relay.samples(), self._node_samples()]
            parts.append(self._publish_times.samples())
        return merge(parts)

    def _node_samples(self) -> Samples:
        count = self.settings.processes
        return single(
            {
                "aphlict_ready": self.state is NodeState.RUNNING,
                "aphlict_processes_expected": count if self._edges is None else count + 1,
                "aphlict_connections_limit": self._max_clients * count,
            }
        )

    async def overview(self) -> bytes:
        """Return the overview of the node as JSON."""
        return await self._overviews.get()

    def facts(self) -> dict[str, Any]:
        """Part of NodeFacts."""
        return {
            "fingerprint": self.fingerprint,
            "state": self.state.value,
            "uptime": time.monotonic() - self._started,
            "peers": [] if self._relay is None else self._relay.status(),
        }

    async def survey(self) -> list[ProcessOverview]:
        """Part of NodeFacts."""
        own, edges = await asyncio.gather(
            self._surveyor.survey(),
            _nothing() if self._edges is None else self._edges.collect(OVERVIEW, None),
        )
        return [own, *sorted(edges, key=lambda edge: edge.name)]

    def history_size(self, instance: str, /) -> int:
        """Part of NodeFacts."""
        return len(self.hub.instances[instance].history) if instance in self.hub.instances else 0

    async def trace(self, query: TraceQuery, *, asks_peers: bool) -> TraceAnswer:
        """Find out what became of a message, at this node and at its peers."""
        peers = self._relay.trace(query) if asks_peers and self._relay is not None else _nothing()
        own, others = await asyncio.gather(self._trace(query), peers)
        return answer(query, [own, *others], time.time())

    async def _trace(self, query: TraceQuery) -> NodeReport:
        """Examine the processes of this node."""
        own, edges = await asyncio.gather(
            self._tracer.trace(query),
            _nothing() if self._edges is None else self._edges.collect(TRACE, query),
        )
        node = merge_processes(own, edges, query)
        node.fingerprint = self.fingerprint
        if self._edges is not None:
            node.mark_silent(self._edges.expected - len(edges))
        return node

    def on_peer_announced(self, fingerprint: str, /) -> None:
        """Another node has asked for the status: it is up."""
        if self._relay is not None:
            self._relay.on_peer_announced(fingerprint)

    def on_greeting(self, greeting: Greeting, /) -> None:
        """Another node has sent a request."""
        self.hub.sequencer.on_greeting(greeting, time.monotonic())
        if self._edges is not None:
            self._edges.flush()

    def report(self) -> dict[str, Report]:
        """Report to another node how far this one is with each origin."""
        return self.hub.sequencer.report(time.monotonic())

    def prepare_reload(self, settings: Settings, read: Read = read_file) -> Callable[[], None]:
        """Prepare new limits, certificates and keys; the returned function applies them and cannot fail.

        `settings` have the same ports and peers. Raises ConfigError; then nothing has changed.
        """
        apply_to_server = self.server.prepare_reload(settings, read)
        connections = max_clients(settings).connections

        def apply() -> None:
            apply_to_server()
            self.settings, self._max_clients = settings, connections
            self.hub.reload(settings.limits)
            if self._relay is not None:
                self._relay.reload(settings.peers, read)

        return apply

    async def drain(self) -> None:
        """Stop gracefully: accept no more clients, disconnect the others bit by bit, send peers what is queued."""
        self._state = NodeState.STOPPING
        if self.hub.connections:
            log.info(log_events.DRAINING, self.hub.connections, self.settings.drain_time)
        await asyncio.sleep(self.settings.drain_delay)
        await self.server.drain()
        if self._link is not None:
            self._link.leave()
        if self._edges is not None:
            self._edges.close()
        if self._relay is not None and (unsent := await self._relay.close(FLUSH_TIMEOUT)):
            log.warning(log_events.MESSAGES_UNSENT, unsent)
        self.server.close()

    def abort(self) -> None:
        """Stop immediately: connections are closed, queued messages are lost."""
        if self._link is not None:
            self._link.close()
        if self._edges is not None:
            self._edges.close()
        self.server.abort()


async def _nothing() -> list[Any]:
    """Take the place of a request to others, of which there are none."""
    return []


def _describe(server: ServerSettings) -> str:
    return f"{server.type} {server.address}:{server.port}{' with TLS' if server.tls else ''}"


def _with_edges(hub: Samples, edges: Samples) -> Samples:
    """Return the figures of a hub and of its edges as one. Without an edge that responds, nothing is delivered."""
    merged = merge([hub, edges])
    return merged if "aphlict_processes" in edges else merged | single({"aphlict_ready": 0})
