"""Listening sockets: their options, and errors."""

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from aphlict.config.settings import ServerSettings
from aphlict.errors import AddressInUse, BindError
from aphlict.process import ports
from tests.support.ports import free_ports


def server(port: int, listen: str | None = "127.0.0.1") -> ServerSettings:
    """A client server."""
    return ServerSettings(type="client", port=port, listen=listen)


def test_each_server_gets_its_sockets_in_order() -> None:
    wanted = free_ports(2)
    bound = ports.bind_all([server(port) for port in wanted])[0]
    assert [sock.getsockname()[1] for (sock,) in bound] == wanted
    for (sock,) in bound:
        assert not sock.getblocking()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        sock.close()


def test_the_backlog_is_long() -> None:
    (port,) = free_ports(1)
    (sock,) = ports.bind(server(port))
    longest = int(Path("/proc/sys/net/core/somaxconn").read_text())
    *_, backlog = struct.unpack_from("8B6I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104))
    sock.close()
    assert backlog == min(ports.BACKLOG, longest)  # tcpi_sacked, which for a listener is its backlog


def test_a_failure_leaves_nothing_open() -> None:
    free, taken = free_ports(2)
    with socket.create_server(("127.0.0.1", taken)), pytest.raises(AddressInUse):
        ports.bind_all([server(free), server(taken)])
    ports.bind(server(free))[0].close()


def test_the_error_for_a_port_in_use_names_the_process() -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(AddressInUse) as caught:
        ports.bind(server(port, "0.0.0.0"))
    assert f"port {port} (0.0.0.0:{port}) is in use by process {os.getpid()} (" in str(caught.value)


def test_a_process_on_another_address_is_not_named() -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.2", port)):
        (sock,) = ports.bind(server(port, "127.0.0.1"))
        assert str(os.getpid()) in ports.describe_port_owner(server(port, "127.0.0.1"))
        sock.close()
        assert "has just exited: try again" in ports.describe_port_owner(server(port, "127.0.0.1"))


def test_an_outgoing_connection_on_the_port_is_recognized() -> None:
    """The kernel takes the ports of connections out of a range that many a server's port is in."""
    (port,) = free_ports(1)
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.create_connection(other.getsockname(), source_address=("127.0.0.1", port)),
        pytest.raises(AddressInUse) as caught,
    ):
        ports.bind(server(port))
    assert f"is in use by an outgoing connection of process {os.getpid()} (" in str(caught.value)
    assert "net.ipv4.ip_local_port_range" in str(caught.value)


def test_ipv6() -> None:
    (port,) = free_ports(1)
    (sock,) = ports.bind(server(port, "::1"))
    assert (sock.family, sock.getsockname()[:2]) == (socket.AF_INET6, ("::1", port))
    sock.close()


def test_the_ipv6_wildcard_accepts_ipv4() -> None:
    (port,) = free_ports(1)
    (sock,) = ports.bind(server(port, "::"))
    socket.create_connection(("127.0.0.1", port)).close()
    socket.create_connection(("::1", port)).close()
    sock.close()


def test_the_ipv6_wildcard_leaves_ipv4_to_another_server() -> None:
    (port,) = free_ports(1)
    bound = ports.bind_all([server(port, "::"), server(port, "0.0.0.0")])[0]
    assert [sock.family for (sock,) in bound] == [socket.AF_INET6, socket.AF_INET]
    for (sock,) in bound:
        sock.close()


def test_a_name_is_bound_on_each_of_its_addresses() -> None:
    (port,) = free_ports(1)
    bound = ports.bind(server(port, "localhost"))
    addresses = {info[4] for info in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
    assert {sock.getsockname() for sock in bound} == addresses
    for sock in bound:
        sock.close()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("192.0.2.1", "this machine does not have that address"),
        ("2001:db8::1", "this machine does not have that address"),
        ("no-such-name.invalid", "Name or service not known"),
    ],
)
def test_an_address_that_cannot_be_bound(address: str, why: str) -> None:
    with pytest.raises(BindError, match="cannot listen on") as caught:
        ports.bind(server(9, address))
    assert (type(caught.value), why in str(caught.value) or "name resolution" in str(caught.value)) == (
        BindError,
        True,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give root up")
def test_the_error_for_a_low_port_names_the_capability() -> None:
    code = (
        "import os; ''.encode('idna')\n"
        "from aphlict.process import ports; from aphlict.config.settings import ServerSettings\n"
        "from aphlict.errors import BindError\n"
        "open('/proc/sys/net/ipv4/ip_unprivileged_port_start').read().strip() == '0' and print('needs root')\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "try: ports.bind(ServerSettings(type='client', port=81, listen='127.0.0.1'))\n"
        "except BindError as error: print(error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "needs root" in shown
