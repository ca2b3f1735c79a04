"""Peers over https: verified, or not talked to."""

import asyncio
import ssl
from pathlib import Path

import pytest

from aphlict.cluster.outbox import PeerOptions
from aphlict.config.settings import PeerSettings
from tests.cluster.messages import message, relay_to
from tests.cluster.nodes import FakeNode
from tests.support.certificates import Issued, root, self_signed
from tests.support.waiting import eventually


def server_context(issued: Issued, folder: Path) -> ssl.SSLContext:
    files = issued.write(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    return context


def https(node: FakeNode, ca: str | None, host: str = "127.0.0.1") -> PeerSettings:
    return PeerSettings(host=host, port=node.port, protocol="https", ssl_ca=ca)


async def test_a_peer_with_a_valid_certificate(tmp_path: Path) -> None:
    authority = root()
    files = authority.write(tmp_path, "ca")
    async with (
        FakeNode("B", server_context(authority.issue(), tmp_path)).start() as node,
        relay_to(https(node, files.ca), https(node, files.ca, "localhost")) as relay,
    ):
        for number in range(1000):
            relay.forward(message(str(number)))
        await node.got(2000)
        assert node.connections == 2
        await eventually(lambda: [peer["state"] for peer in relay.status()] == ["up", "up"])


async def test_a_trusted_self_signed_certificate(tmp_path: Path) -> None:
    issued = self_signed()
    async with (
        FakeNode("B", server_context(issued, tmp_path)).start() as node,
        relay_to(https(node, issued.write(tmp_path).ca)) as relay,
    ):
        relay.forward(message("1"))
        await node.got(1)


async def test_a_certificate_of_an_unknown_authority(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority, stranger = root(), root("Someone Else")
    files = stranger.write(tmp_path, "ca")
    async with (
        FakeNode("B", server_context(authority.issue(), tmp_path)).start() as node,
        relay_to(https(node, files.ca)) as relay,
    ):
        relay.forward(message("1"))
        await eventually(lambda: node_is_away(relay.status()))
        assert relay.status()[0]["last_error_code"] == "peer_tls_error"
        assert node.messages == []


async def test_a_new_authority_applies_to_the_next_connection(tmp_path: Path) -> None:
    authority = root()
    ca = tmp_path / "ca"
    node = FakeNode("B", server_context(authority.issue(), tmp_path)).start()
    async with node, relay_to(https(node, str(ca))) as relay:
        relay.forward(message("1"))
        await eventually(lambda: node_is_away(relay.status()))
        assert str(ca) in str(relay.status()[0]["last_error"])
        ca.write_bytes(authority.own)
        await node.got(1)


async def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    authority = root()
    files = authority.write(tmp_path, "ca")
    async with (
        FakeNode("B", server_context(authority.issue("example.org"), tmp_path)).start() as node,
        relay_to(https(node, files.ca)) as relay,
    ):
        await eventually(lambda: node_is_away(relay.status()))
        assert "IP address mismatch" in str(relay.status()[0]["last_error"])


async def test_the_trust_store_of_the_system_lacks_a_private_authority(tmp_path: Path) -> None:
    async with (
        FakeNode("B", server_context(root().issue(), tmp_path)).start() as node,
        relay_to(https(node, None)) as relay,
    ):
        await eventually(lambda: node_is_away(relay.status()))
        assert relay.status()[0]["last_error_code"] == "peer_tls_error"


async def test_a_peer_without_tls(tmp_path: Path) -> None:
    ca = root().write(tmp_path).ca
    async with (
        FakeNode("B").start() as node,
        relay_to(https(node, ca), options=PeerOptions(connect_timeout=0.5)) as relay,
    ):
        await eventually(lambda: node_is_away(relay.status()))
        assert relay.status()[0]["last_error_code"] == "peer_timeout"


async def test_a_peer_that_responds_to_tls_in_plain_text(tmp_path: Path) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = PeerSettings(
            host="127.0.0.1", port=port, protocol="https", ssl_ca=root().write(tmp_path).ca
        )
        async with relay_to(settings) as relay:
            await eventually(lambda: node_is_away(relay.status()))
            assert relay.status()[0]["last_error_code"] == "peer_tls_error"


def node_is_away(status: list[dict[str, object]]) -> bool:
    return status[0]["state"] == "down"
