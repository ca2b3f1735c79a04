"""The lines of the log: each event has a stable code, its sentence, and the names of the data in it.

A log call takes an event in place of a format string: `log.warning(PEER_UNREACHABLE, peer, error)`. The text log has
the sentence; the JSON log also has the code and the data. docs/operations.md is tested against this list.
"""

import re
from typing import Any, NamedTuple

# Of JSON lines; no data has one of these names.
KEYS = ("time", "level", "event", "process", "pid", "message")

_FIELD = re.compile(r"\{(\w+)(?::([^}]*))?\}")


class LogEvent(str):
    """A format string for `logging`, made of a sentence with named fields: `peer {peer} is up after {seconds:.1f} s`.

    A field without a format is an `%s`. A code is part of the interface: it never changes its meaning. Several events
    have the same code if their sentences differ only in details.
    """

    __slots__ = ("code", "fields")

    code: str
    fields: tuple[str, ...]

    def __new__(cls, code: str, sentence: str) -> "LogEvent":
        template = _FIELD.sub(lambda match: f"%{match[2] or 's'}", sentence.replace("%", "%%"))
        self = super().__new__(cls, template)
        self.code = code
        self.fields = tuple(match[1] for match in _FIELD.finditer(sentence))
        return self


class Notice(str):
    """The sentence of an event that a command prints, and the log of a server may have too."""

    __slots__ = ("event", "values")

    event: LogEvent
    values: tuple[Any, ...]

    def __new__(cls, event: LogEvent, *values: object) -> "Notice":
        self = super().__new__(cls, event % values)
        self.event = event
        self.values = values
        return self


class Aside(NamedTuple):
    """A value that follows a sentence in brackets, after a label; or nothing, if it is empty."""

    value: object
    label: str = ""

    def __str__(self) -> str:
        return f" ({self.label}{self.value})" if self.value else ""


def trace_of(traceparent: str | None) -> Aside:
    """The trace of a message as the end of a sentence."""
    return Aside(traceparent, "traceparent ")


class Names(tuple[str, ...]):
    """A list: in the JSON log it is one."""

    __slots__ = ()

    def __str__(self) -> str:
        return ", ".join(self)


class Times(NamedTuple):
    """A count of repetitions."""

    value: int

    def __str__(self) -> str:
        return f"{self.value:,} more time{'s' * (self.value != 1)}"


class Lines(NamedTuple):
    """A count of lines that are missing."""

    value: int

    def __str__(self) -> str:
        return "1 line was" if self.value == 1 else f"{self.value:,} lines were"


# Start, stop and processes
LISTENING = LogEvent("listening", "node {node} listens on {ports}")
STALE_PIDFILE = LogEvent(
    "stale_pidfile", "replaced the stale pidfile {path}: its process {stale_pid} {reason}"
)
RUNS_AS_ROOT = LogEvent(
    "runs_as_root",
    'the server runs as root: set "user" in the configuration, and it switches to that user when its ports are open',
)
USER_IGNORED = LogEvent(
    "user_ignored",
    '"user" and "group" apply only if the server is started as root: it keeps running as user {uid}',
)
STOPPING = LogEvent("stopping", "stopping ({reason})")
STOPPING_IMMEDIATELY = LogEvent("stopping_immediately", "stopping immediately (second signal: {signal})")
DRAINING = LogEvent("draining", "draining: {clients:d} clients are disconnected within {seconds:g} s")
STOPPED = LogEvent("stopped", "the server stopped")
UNCLEAN_SHUTDOWN = LogEvent("unclean_shutdown", "unclean shutdown: {worker}: {cause}")
SERVER_ENDED = LogEvent("server_ended", "the server ends: {reason}")
WORKER_EXITED = LogEvent(
    "worker_exited",
    "{worker} {worker_pid:d} exited after {seconds:.1f} s, {cause}{reason}: restarting it in {delay:g} s",
)
WORKER_NOT_STARTED = LogEvent(
    "worker_not_started", "cannot start the {worker}: {reason}; next try in {delay:g} s"
)
WORKER_KILLED = LogEvent("worker_killed", "{worker} {worker_pid:d} does not exit: killing it")
WORKER_FAILED = LogEvent("worker_failed", "internal error, the worker exits; please report this")
SUPERVISOR_EXITED = LogEvent("supervisor_exited", "the supervisor has exited: stopping the worker")
SYSTEMD_NOT_NOTIFIED = LogEvent("systemd_not_notified", "cannot notify systemd of {state}: {reason}")

# Configuration and files
RELOADED = LogEvent("reloaded", "reloaded {path}")
RELOAD_FAILED = LogEvent("reload_failed", "reload failed, keeping the current configuration: {reason}")
RELOAD_LATE = LogEvent(
    "reload_late",
    "no response from {workers} within {seconds:g} s: the new configuration applies there when it continues",
)
RELOAD_ERROR = LogEvent(
    "reload_error", "internal error while preparing the new configuration; please report this"
)
RESTART_NEEDED = LogEvent("restart_needed", '"{key}" has changed in {path}: restart to apply it')
LOGS_REOPENED = LogEvent("logs_reopened", "reopening the log files (SIGUSR1)")
LINES_LOST = LogEvent("lines_lost", "{count} lost here")
LOG_FILE_NOT_OPENED = LogEvent(
    "log_file_not_opened", "cannot open {path} ({reason}), continuing in this file"
)
FILE_EXPOSED = LogEvent(
    "file_exposed", "{key} in {path} is accessible to every user of this machine: {command}"
)
ADMIN_OPEN = LogEvent(
    "admin_open",
    "the admin server on {address} has no authentication: anyone who can reach it can publish; "
    'set "admin.secret" or "ssl.ca", or let it "listen" on 127.0.0.1',
)
PORT_BLOCKED = LogEvent(
    "port_blocked",
    "the client server on {address} is not reachable from browsers, "
    "which refuse to connect to port {port:d}: use another port, or a proxy in front of it",
)
CERTIFICATE_EXPIRED = LogEvent(
    "certificate_expired",
    "the certificate {certificate} of {server} expired on {expires}: browsers reject it, renew it",
)
CERTIFICATE_NOT_YET_VALID = LogEvent(
    "certificate_not_yet_valid",
    "the certificate {certificate} of {server} is not valid before {starts}: browsers reject it",
)
CERTIFICATE_EXPIRES = LogEvent(
    "certificate_expires",
    "the certificate {certificate} of {server} expires on {expires}, {left}: renew it",
)
CERTIFICATE_UNRELATED = LogEvent(
    "certificate_unrelated",
    "the certificate {certificate} of {server} signed no certificate of the chain and is not sent: remove it",
)
CERTIFICATES_OUT_OF_ORDER = LogEvent(
    "certificates_out_of_order", "the certificates of {server} are out of order: they are sent as {order}"
)

# Connections
ACCEPT_FAILED = LogEvent(
    "accept_failed", "cannot accept connections: {reason}; see 'file descriptors' in docs/operations.md"
)
PORT_FAILED = LogEvent("port_failed", "a port accepts no more connections: {reason}; restart the server")
NOT_ACCEPTED = LogEvent("not_accepted", "closed a new connection from {address}: {reason}")
PROXY_HEADER_REJECTED = LogEvent(
    "proxy_header_rejected", "rejected a connection from {address}: {reason} ('proxy.protocol' is set)"
)
REQUEST_REJECTED = LogEvent(
    "request_rejected", "[{connection:d}] rejected a request from {address}: {reason}"
)
REQUEST_FAILED = LogEvent("request_failed", "internal error on {method} {path}; please report this")
CONNECTION_FAILED = LogEvent("connection_failed", "internal error on a connection; please report this")
CONNECTED = LogEvent("connected", "[{connection:d}] connected from {address} to {instance}")
DISCONNECTED = LogEvent("disconnected", "[{connection:d}] disconnected: {reason}")
TOKEN_ACCEPTED = LogEvent("token_accepted", "[{connection:d}] {subject} may subscribe to {channels}")
SUBSCRIBE_REQUESTED = LogEvent("subscribe_requested", "[{connection:d}] {address} subscribes: {request}")
COMMAND_RECEIVED = LogEvent("command_received", "[{connection:d}] {command}")
COMMAND_REJECTED = LogEvent(
    "command_rejected", "[{connection:d}] rejected a command from {address}: {reason}"
)
REPLAYED = LogEvent("replayed", "[{connection:d}] {recovery}")

# Limits: `limit` is a configuration key, or the name of a check
LIMIT_REACHED = LogEvent("limit_reached", "{limit} reached by {address}{detail}")
LIMIT_REPEATED = LogEvent("limit_reached", "{limit} reached by {address} {more_times}")
LIMIT_REPEATED_BY_OTHERS = LogEvent("limit_reached", "{limit} reached by other addresses {more_times}")
REFUSED = LogEvent("refused", "{limit} refused {address}{detail}")
REFUSED_AGAIN = LogEvent("refused", "{limit} refused {address} {more_times}")
REFUSED_OTHERS = LogEvent("refused", "{limit} refused other addresses {more_times}")

# Messages
PUBLISHED = LogEvent("published", "published {unique_id} to {channels}: {receipt}{traceparent}")
DELIVERY_FAILED = LogEvent("delivery_failed", "internal error during a delivery; please report this")
MESSAGES_LOST = LogEvent("messages_lost", "{count:d} messages of node {node} never arrived here")
CLIENTS_RESUME = LogEvent("clients_resume", "messages were missed: {clients:d} clients have to resume")
MESSAGES_UNSENT = LogEvent("messages_unsent", "{count:d} messages to peers were not sent before the stop")

# Peers
PEER_IDENTIFIED = LogEvent("peer_identified", "peer {peer} is node {node}")
PEER_IS_NODEJS = LogEvent(
    "peer_is_nodejs", "peer {peer} is a Node.js server: it receives messages one by one"
)
PEER_IS_SELF = LogEvent("peer_is_self", "peer {peer} is this node itself: nothing is sent to it")
PEER_UNREACHABLE = LogEvent("peer_unreachable", "peer {peer} is unreachable: {reason}")
PEER_STILL_UNREACHABLE = LogEvent("peer_unreachable", "peer {peer} is still unreachable: {reason}")
PEER_UP = LogEvent(
    "peer_up", "peer {peer} is up again after {seconds:.1f} s: {count:d} queued messages were sent"
)
PEER_MESSAGES_DROPPED = LogEvent(
    "peer_messages_dropped", "peer {peer}: {count:d} messages were dropped, too old or too many"
)
PEER_MESSAGE_REJECTED = LogEvent(
    "peer_message_rejected", "peer {peer}: message {unique_id} was dropped: {reason}{traceparent}"
)
PEER_MESSAGES_REJECTED = LogEvent(
    "peer_messages_rejected", "peer {peer}: {count:d} more messages were rejected"
)
PEER_MESSAGES_UNSENT = LogEvent(
    "peer_messages_unsent", "peer {peer}: {count:d} messages were not sent before the stop"
)
PEER_FAILED = LogEvent("peer_failed", "peer {peer}: unexpected error while sending; please report this")

# Hub and edges
HUB_SILENT = LogEvent("hub_silent", "the hub does not respond: accepting clients without history for now")
EDGE_JOINED = LogEvent("edge_joined", "an edge has joined: {count:d} of {expected:d}")
EDGE_LOST = LogEvent("edge_lost", "lost an edge: {count:d} of {expected:d} left")
EDGE_NOT_READING = LogEvent(
    "edge_not_reading", "disconnected an edge that does not read: it has to join again"
)
EDGE_SLOW = LogEvent("edge_slow", "an edge is slow: {count:d} responses do not wait for it")
RECORD_FAILED = LogEvent(
    "record_failed",
    "internal error on a record from the hub, this edge joins again; please report this",
)
HUB_REQUEST_FAILED = LogEvent(
    "hub_request_failed", "internal error answering the {request} request of the hub; please report this"
)

LIBRARY = "library"  # the code of lines that Python or a package logs: their `logger` is named
