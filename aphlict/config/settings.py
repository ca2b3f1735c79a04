"""The table of settings: every key, its type and default. docs/configuration.md is tested against it."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field, structs

from aphlict.config.machine import count_cpus

# `extra` describes the value for error messages and the manual. Its `not_given` is a value that means the same as
# null, because existing configurations use it: see OptionalPath.
Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(ge=0, le=86400, extra={"unit": "seconds"})]
PositiveSeconds = Annotated[float, Meta(gt=0, le=86400, extra={"unit": "seconds"})]
Bytes = Annotated[int, Meta(ge=1, extra={"unit": "bytes"})]
Mebibytes = Annotated[int, Meta(ge=1, extra={"unit": "MiB", "not_given": 0})]
Count = Annotated[int, Meta(ge=1)]
Text = Annotated[str, Meta(min_length=1)]
Address = Annotated[str, Meta(min_length=1, extra={"kind": "an address"})]
Network = Annotated[str, Meta(min_length=1, extra={"kind": "a network"})]
OptionalAddress = Annotated[str, Meta(min_length=1, extra={"kind": "an address", "not_given": ""})]
FilePath = Annotated[str, Meta(min_length=1, extra={"kind": "a path"})]
# Phorge and the Node.js server treat an empty text here as "not given". Keys that they do not know, such as `ssl.ca`
# and the keys of a peer, are FilePath: an empty text there must not silently disable a check.
OptionalPath = Annotated[str, Meta(min_length=1, extra={"kind": "a path", "not_given": ""})]
Origin = Annotated[str, Meta(min_length=1, extra={"kind": "an origin"})]
Name = Annotated[str, Meta(min_length=1, extra={"kind": "a name"})]
Secret = Annotated[str, Meta(min_length=16, extra={"kind": "text of at least 16 characters"})]

# What one command of `limits.commands` pays for: about 20 µs of work. docs/configuration.md has the table.
BYTES_PER_COMMAND = 512  # received, in addition to one command for each frame, head or piece of one
CHANNELS_PER_COMMAND = 32
QUERY_CHANNELS_PER_COMMAND = 16  # of an event stream or a poll
SUBSCRIPTIONS_PER_COMMAND = 32  # looked up for a replay
ENTRIES_PER_COMMAND = 24  # of the history that are examined, and names to resume after

DEFAULT_ADDRESS = {"admin": "127.0.0.1", "client": "0.0.0.0"}  # noqa: S104 -- clients connect from everywhere


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One port to listen on."""

    type: Literal["admin", "client"]
    port: Port
    listen: OptionalAddress | None = None
    ssl_key: OptionalPath | None = field(default=None, name="ssl.key")
    ssl_cert: OptionalPath | None = field(default=None, name="ssl.cert")
    ssl_chain: OptionalPath | None = field(default=None, name="ssl.chain")
    ssl_ca: FilePath | None = field(default=None, name="ssl.ca")
    proxy_protocol: bool = field(default=False, name="proxy.protocol")
    proxy_trusted: tuple[Network, ...] = field(default=(), name="proxy.trusted")
    origins: tuple[Origin, ...] = ()
    admin_secret: Secret | None = field(default=None, name="admin.secret")
    admin_secret_file: FilePath | None = field(default=None, name="admin.secret.file")
    metrics_secret: Secret | None = field(default=None, name="metrics.secret")
    admin_hosts: tuple[Name, ...] = field(default=(), name="admin.hosts")
    auth_keys: tuple[FilePath, ...] = field(default=(), name="auth.keys")
    auth_audience: Text | None = field(default=None, name="auth.audience")

    @property
    def address(self) -> str:
        """Return the address to bind: `listen`, or the default of the type."""
        return self.listen or DEFAULT_ADDRESS[self.type]

    @property
    def tls(self) -> bool:
        """Return whether the port uses TLS."""
        return self.ssl_key is not None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the secrets that this admin server accepts; the first one is what this node sends to peers.

        `config.files.read_secrets` fills `admin_secret` with the lines of `admin.secret.file`.
        """
        return tuple(self.admin_secret.split("\n")) if self.admin_secret else ()


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One log file. `level` is the least that is written; None is "info", and "debug" for the command `debug`."""

    path: FilePath
    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] | None = None


class PeerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The admin server of a peer."""

    host: Address
    port: Port
    protocol: Literal["http", "https"] = "http"
    ssl_ca: FilePath | None = field(default=None, name="ssl.ca")
    ssl_key: FilePath | None = field(default=None, name="ssl.key")
    ssl_cert: FilePath | None = field(default=None, name="ssl.cert")
    secret: Secret | None = None


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on the cost of clients and publishers; sizes in bytes, times in seconds."""

    client_frame: Bytes = field(default=64 * 1024, name="limits.client_frame")
    client_frame_time: PositiveSeconds = field(default=30.0, name="limits.client_frame.time")
    body: Bytes = field(default=1024 * 1024, name="limits.body")
    body_time: PositiveSeconds = field(default=30.0, name="limits.body.time")
    batch: Count = field(default=1024, name="limits.batch")
    channels: Count = field(default=8192, name="limits.channels")
    request_head: Bytes = field(default=8 * 1024, name="limits.request_head")
    name: Bytes = field(default=256, name="limits.name")
    subscriptions: Count = field(default=1024, name="limits.subscriptions")
    subscriptions_total: Bytes = field(default=512 * 1024 * 1024, name="limits.subscriptions.total")
    commands: Count = field(default=50, name="limits.commands")
    commands_burst: Count = field(default=200, name="limits.commands.burst")
    handshake: PositiveSeconds = field(default=10.0, name="limits.handshake")
    idle: PositiveSeconds = field(default=75.0, name="limits.idle")
    send_buffer: Bytes = field(default=1024 * 1024, name="limits.send_buffer")
    send_buffer_total: Bytes = field(default=256 * 1024 * 1024, name="limits.send_buffer.total")
    send_buffer_address: Bytes | None = field(default=None, name="limits.send_buffer.address")
    delivery_queue: Count = field(default=1_000_000, name="limits.delivery_queue")
    connections: Count | None = field(default=None, name="limits.connections")
    connections_address: Count | None = field(default=None, name="limits.connections.address")
    connections_second: Count | None = field(default=None, name="limits.connections.second")
    history: Bytes = field(default=64 * 1024 * 1024, name="limits.history")
    ping_interval: PositiveSeconds = field(default=30.0, name="ping.interval")
    ping_timeout: PositiveSeconds = field(default=60.0, name="ping.timeout")


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checked configuration; every path in it is absolute.

    `limits` has its keys (`limits.body`, `ping.interval`, …) at the top of the configuration file.
    """

    servers: tuple[ServerSettings, ...]
    logs: tuple[LogSettings, ...] = ()
    cluster: tuple[PeerSettings, ...] = ()
    pidfile: FilePath
    workers: Count | Literal["auto"] = 1
    memory_hint: Mebibytes | None = field(default=None, name="memory.hint")
    user: Text | None = None
    group: Text | None = None
    drain_time: Seconds = field(default=2.0, name="drain.time")
    drain_delay: Seconds = field(default=0.0, name="drain.delay")
    limits: Limits = Limits()

    @property
    def processes(self) -> int:
        """Return the number of processes that serve clients: `workers`; "auto" is one for each usable CPU.

        The number of CPUs can change at any time, so `config.loader` replaces "auto" by a number once.
        """
        return count_cpus() if self.workers == "auto" else self.workers

    @property
    def peers(self) -> tuple[PeerSettings, ...]:
        """Return `cluster` with credentials: by default those that this node's admin server requires."""
        admins = [each for each in self.servers if each.type == "admin"]
        secret = next((secret for each in admins for secret in each.secrets), None)
        with_certificates = next((each for each in admins if each.ssl_ca), None)
        return tuple(_identify(peer, secret, with_certificates) for peer in self.cluster)


def _identify(
    peer: PeerSettings, secret: str | None, with_certificates: ServerSettings | None
) -> PeerSettings:
    peer = structs.replace(peer, secret=peer.secret or secret)
    if with_certificates is None or peer.protocol != "https" or peer.ssl_cert:
        return peer
    return structs.replace(peer, ssl_key=with_certificates.ssl_key, ssl_cert=with_certificates.ssl_cert)
