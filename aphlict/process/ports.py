"""Opening every listener before anything else is promised, and naming who holds a port that is taken."""

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import psutil

from aphlict.config.settings import ServerSettings
from aphlict.errors import AddressInUse, BindError
from aphlict.protocol.addresses import host_port

LOOKS = 5  # for who has a port
BACKLOG = 4096  # the kernel caps it at net.core.somaxconn
WILDCARDS = {"0.0.0.0", "::"}  # noqa: S104 -- compared with, not bound to
NOT_ON_THIS_MACHINE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def bind_all(servers: Sequence[ServerSettings], processes: int = 1) -> list[list[list[socket.socket]]]:
    """Listen for each server, in order; a name with several addresses gives a server several sockets.

    With several processes that hold browsers, each gets its own copy of the client servers' sockets, among which
    the kernel spreads the connections (SO_REUSEPORT, socket(7)); the first has the admin servers' too.
    Raises AddressInUse or BindError, and then leaves nothing open.
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
    """Raise AddressInUse where somebody listens: another server of the same user could share the port unnoticed."""
    for sock in bind(server, ipv6_only=ipv6_only):
        sock.close()


def bind(server: ServerSettings, *, ipv6_only: bool = False, shared: bool = False) -> list[socket.socket]:
    """Listen on every address that the server's `listen` names and this machine has."""
    with ExitStack() as undo:
        sockets = []
        for family, address in _addresses(server):
            sock = _try_to_listen(server, family, address, ipv6_only=ipv6_only, shared=shared)
            if sock is not None:
                undo.callback(sock.close)
                sockets.append(sock)
        if not sockets:
            raise BindError(f"cannot listen on {name(server)}: this machine does not have that address")
        undo.pop_all()
    return sockets


def name(server: ServerSettings) -> str:
    """`address:port` as people write it."""
    return host_port(server.address, server.port)


def _shares_port_with_ipv4(server: ServerSettings, servers: Sequence[ServerSettings]) -> bool:
    """`::` takes IPv4 too, as Node.js does, unless another server has that port on an IPv4 address."""
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
        raise BindError(f"cannot listen on {name(server)}: {error.strerror}") from error
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
    """Listen, or return None when the address is not this machine's (`::1` of localhost, without IPv6)."""
    try:
        return _listen(family, address, ipv6_only=ipv6_only, shared=shared)
    except OSError as error:
        if error.errno in NOT_ON_THIS_MACHINE:
            return None
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(f"port {server.port} ({name(server)}) is taken by {holder(server)}") from error
        why = error.strerror
        if error.errno in (errno.EACCES, errno.EPERM) and server.port < 1024:
            why = f"{why} (a port below 1024 needs root or CAP_NET_BIND_SERVICE)"
        raise BindError(f"cannot listen on {name(server)}: {why}") from error


def holder(server: ServerSettings) -> str:
    """Describe what has the port that this server wants: a listener, or a connection to somewhere else."""
    there = next(filter(None, (_in_the_way(server) for _ in range(LOOKS))), [])
    listeners = [each for each in there if each.status == psutil.CONN_LISTEN]
    pid = next((each.pid for each in (*listeners, *there) if each.pid is not None), None)
    if there and not listeners:
        who = "a process" if pid is None else describe(pid)
        return (
            f"a connection that {who} has made: try again when it has ended, or take a port outside of "
            "net.ipv4.ip_local_port_range (sysctl names it)"
        )
    if pid is not None:
        return describe(pid)
    if there:
        return "a process of another user (as root, ss -ltnp names it)"
    return "a process that cannot be seen from here, or was gone a moment later: try again"


def _in_the_way(server: ServerSettings) -> list[Any]:
    """What has the port. Where very many come and go while the kernel lists them, one may be left out."""
    return [each for each in psutil.net_connections("tcp") if _is_in_the_way(each.laddr, server)]


def _is_in_the_way(address: tuple[()] | tuple[str, int], server: ServerSettings) -> bool:
    return len(address) == 2 and address[1] == server.port and _overlap(address[0], server.address)


def describe(pid: int) -> str:
    """`process PID (its command line, shortened)`."""
    try:
        process = psutil.Process(pid)
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        command = "no longer there"
    return f"process {pid} ({command if len(command) <= 120 else command[:119] + '…'})"


def _overlap(one: str, other: str) -> bool:
    return one == other or bool(WILDCARDS & {one, other}) or not other.replace(".", "").isdigit()
