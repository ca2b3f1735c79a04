"""Opening the listening sockets, and finding the process that uses a port."""

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import psutil

from aphlict.config.settings import ServerSettings
from aphlict.errors import AddressInUse, BindError
from aphlict.protocol.addresses import host_port

LOOKUP_ATTEMPTS = 5  # at finding the process that uses a port
BACKLOG = 4096  # the kernel caps it at net.core.somaxconn
WILDCARDS = {"0.0.0.0", "::"}  # noqa: S104 -- compared with, not bound to
ADDRESS_MISSING = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def bind_all(servers: Sequence[ServerSettings], processes: int = 1) -> list[list[list[socket.socket]]]:
    """Listen for each server, in order; a name with several addresses gives a server several sockets.

    If several processes serve clients, each has its own sockets for the client servers: the kernel distributes the
    connections (SO_REUSEPORT, socket(7)). The first copy also has those of the admin servers.
    Raises AddressInUse or BindError with nothing left open.
    """
    with ExitStack() as undo:
        copies = [_bind_copy(servers, copy, undo, shared=processes > 1) for copy in range(processes)]
        undo.pop_all()
    return copies


def _bind_copy(
    servers: Sequence[ServerSettings], copy: int, undo: ExitStack, *, shared: bool
) -> list[list[socket.socket]]:
    bound: list[list[socket.socket]] = []
    for server in servers:
        ipv6_only = _shares_port_with_ipv4(server, servers)
        if server.type == "admin":
            bound.append([] if copy else bind(server, ipv6_only=ipv6_only))
        else:
            if shared and not copy:
                _check_free(server, ipv6_only=ipv6_only)
            bound.append(bind(server, ipv6_only=ipv6_only, shared=shared))
        for sock in bound[-1]:
            undo.callback(sock.close)
    return bound


def _check_free(server: ServerSettings, *, ipv6_only: bool) -> None:
    """Raise AddressInUse if the port is in use: with SO_REUSEPORT, another server of the same user could share it."""
    for sock in bind(server, ipv6_only=ipv6_only):
        sock.close()


def bind(server: ServerSettings, *, ipv6_only: bool = False, shared: bool = False) -> list[socket.socket]:
    """Listen on the addresses of `listen` that this machine has. Raises AddressInUse or BindError."""
    with ExitStack() as undo:
        sockets = []
        for family, address in _addresses(server):
            sock = _try_to_listen(server, family, address, ipv6_only=ipv6_only, shared=shared)
            if sock is not None:
                undo.callback(sock.close)
                sockets.append(sock)
        if not sockets:
            raise BindError(
                f"cannot listen on {host_port(server.address, server.port)}: this machine does not have that address"
            )
        undo.pop_all()
    return sockets


def _shares_port_with_ipv4(server: ServerSettings, servers: Sequence[ServerSettings]) -> bool:
    """`::` accepts IPv4 too, as in Node.js, unless another server has the same port on an IPv4 address."""
    return any(other.port == server.port and ":" not in other.address for other in servers)


def _addresses(server: ServerSettings) -> list[tuple[int, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(
            server.address,
            server.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV,
        )
    except socket.gaierror as error:
        raise BindError(
            f"cannot listen on {host_port(server.address, server.port)}: {error.strerror}"
        ) from error
    return list(dict.fromkeys((int(family), sockaddr) for family, _, _, _, sockaddr in found))  # type: ignore[misc]


def _listen(family: int, address: tuple[str, int], *, ipv6_only: bool, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(ipv6_only))
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _try_to_listen(
    server: ServerSettings, family: int, address: tuple[str, int], *, ipv6_only: bool, shared: bool
) -> socket.socket | None:
    """Listen, or return None if this machine does not have the address (`::1` of localhost, without IPv6)."""
    try:
        return _listen(family, address, ipv6_only=ipv6_only, shared=shared)
    except OSError as error:
        if error.errno in ADDRESS_MISSING:
            return None
        where = host_port(server.address, server.port)
        if error.errno == errno.EADDRINUSE:
            owner = describe_port_owner(server)
            raise AddressInUse(f"port {server.port} ({where}) is in use by {owner}") from error
        reason = error.strerror
        if error.errno in (errno.EACCES, errno.EPERM) and server.port < 1024:
            reason = f"{reason} (a port below 1024 needs root or CAP_NET_BIND_SERVICE)"
        raise BindError(f"cannot listen on {where}: {reason}") from error


def describe_port_owner(server: ServerSettings) -> str:
    """Describe what uses the port of a server: a listener, or an outgoing connection."""
    found = next(filter(None, (_find_sockets(server) for _ in range(LOOKUP_ATTEMPTS))), [])
    listeners = [each for each in found if each.status == psutil.CONN_LISTEN]
    pid = next((each.pid for each in (*listeners, *found) if each.pid is not None), None)
    if found and not listeners:
        process = "a process" if pid is None else describe_process(pid)
        return (
            f"an outgoing connection of {process}: try again when it is closed, or use a port outside of "
            "net.ipv4.ip_local_port_range (see sysctl)"
        )
    if pid is not None:
        return describe_process(pid)
    if found:
        return "a process of another user (as root, ss -ltnp shows it)"
    return "a process that is not visible here, or has just exited: try again"


def _find_sockets(server: ServerSettings) -> list[Any]:
    """The sockets on the port. The kernel's list may lack one if many are opened and closed meanwhile."""
    return [each for each in psutil.net_connections("tcp") if _is_on_port(each.laddr, server)]


def _is_on_port(address: tuple[()] | tuple[str, int], server: ServerSettings) -> bool:
    return len(address) == 2 and address[1] == server.port and _overlap(address[0], server.address)


def describe_process(pid: int) -> str:
    """`process PID (command line, shortened)`."""
    try:
        process = psutil.Process(pid)
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        command = "has exited"
    return f"process {pid} ({command if len(command) <= 120 else command[:119] + '…'})"


def _overlap(one: str, other: str) -> bool:
    return one == other or bool(WILDCARDS & {one, other}) or not other.replace(".", "").isdigit()
