"""The client's address: PROXY protocol and X-Forwarded-For, over real sockets."""

import asyncio
import logging
import socket
import ssl
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.support import certificates
from tests.support.curl import curl, event_source
from tests.support.nodes import RunningNode, command, running_node
from tests.support.proxied import v2

GET_STATUS = b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POLL = b"GET /poll?channel=a&wait=0 HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %b\r\n\r\n"


async def exchange(node: RunningNode, *parts: bytes) -> bytes:
    """Send these parts in turn, and read until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.client_port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def logged(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("aphlict"))


@pytest.fixture(autouse=True)
def every_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="aphlict")


class TestProxyProtocol:
    @pytest.mark.parametrize(
        "header",
        [
            b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n",
            b"PROXY TCP6 2001:db8::7 ::1 56324 443\r\n",
            b"PROXY UNKNOWN\r\n",
            v2("203.0.113.9", tlvs=b"\x20\x00\x05abcde"),
            v2("2001:db8::7"),
            v2(None, command=0, family=0),
        ],
    )
    async def test_a_request_after_the_header(self, header: bytes) -> None:
        async with running_node(client={"proxy.protocol": True}) as node:
            for parts in ((header + GET_STATUS,), (header, GET_STATUS)):
                assert b'{"state":"RUNNING"}' in await exchange(node, *parts)

    @pytest.mark.parametrize("header", [b"PROXY TCP6 2001:db8::7 ::1 56324 443\r\n", v2("203.0.113.9")])
    async def test_a_header_byte_by_byte(self, header: bytes) -> None:
        async with running_node(client={"proxy.protocol": True}) as node:
            reader, writer = await asyncio.open_connection("127.0.0.1", node.client_port)
            for byte in header + GET_STATUS:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.001)
            assert b'{"state":"RUNNING"}' in await asyncio.wait_for(reader.read(), 10)
            writer.close()

    @pytest.mark.parametrize("header", [b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n", v2("203.0.113.9")])
    async def test_a_websocket_over_tls(
        self, header: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        issued = certificates.self_signed("localhost")
        files = {
            "ssl.key": certificates.put(tmp_path / "key.pem", certificates.key_pem(issued.key)),
            "ssl.cert": certificates.put(tmp_path / "cert.pem", certificates.pem(issued.certificate)),
        }
        trust = ssl.create_default_context(cafile=files["ssl.cert"])
        async with running_node(client={"proxy.protocol": True, **files}) as node:
            sock = socket.create_connection(("127.0.0.1", node.client_port))
            sock.sendall(header)
            async with connect(node.url(), sock=sock, ssl=trust) as browser:
                await command(browser, "subscribe", ["a"])
        assert "connected from 203.0.113.9" in logged(caplog)

    async def test_a_websocket_has_the_clients_address(self, caplog: pytest.LogCaptureFixture) -> None:
        async with running_node(client={"proxy.protocol": True}) as node:
            sock = socket.create_connection(("127.0.0.1", node.client_port))
            sock.sendall(v2("2001:db8::7"))
            async with connect(node.url(), sock=sock) as browser:
                await command(browser, "subscribe", ["a"])
        assert "connected from 2001:db8::7" in logged(caplog)

    @pytest.mark.parametrize(
        "data",
        [GET_STATUS, b"\x16\x03\x01\x02\x00", b"PROXY TCP4 1 2 3 4\r\n" + GET_STATUS, b"PROXY " + b"x" * 200],
    )
    async def test_anything_else_is_rejected_with_one_line(
        self, data: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with running_node(client={"proxy.protocol": True}) as node:
            assert await exchange(node, data) == b""
        lines = [line for line in logged(caplog).splitlines() if line.startswith("rejected")]
        assert len(lines) == 1
        assert lines[0].startswith("rejected a connection from 127.0.0.1: it")

    async def test_an_incomplete_header_is_rejected_in_time(self, caplog: pytest.LogCaptureFixture) -> None:
        async with running_node(client={"proxy.protocol": True}, limits__handshake=0.3) as node:
            for data in (b"", b"PROXY TCP4 ", v2("203.0.113.9")[:20]):
                assert await exchange(node, data) == b""
            status = await node.status()
            assert status["limits"]["limits.handshake"] == status["refused"]["proxy.protocol"] == 3
        assert logged(caplog).count("rejected a connection") == 3

    async def test_a_health_check_without_data_is_not_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        async with running_node(client={"proxy.protocol": True}) as node:
            _, writer = await asyncio.open_connection("127.0.0.1", node.client_port)
            writer.close()
            header = v2(None, command=0, family=0)
            assert b"RUNNING" in await exchange(node, header + GET_STATUS)
        assert "rejected" not in logged(caplog)

    async def test_without_the_key_the_header_is_a_bad_request(self) -> None:
        async with running_node() as node:
            answer = await exchange(node, b"PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r\n" + GET_STATUS)
            assert answer.startswith(b"HTTP/1.1 400")

    async def test_pending_connections_are_closed_at_shutdown(self) -> None:
        async with running_node(client={"proxy.protocol": True}) as node:
            reader, writer = await asyncio.open_connection("127.0.0.1", node.client_port)
            writer.write(b"PROXY ")
            await writer.drain()
            assert b"RUNNING" in await exchange(node, v2("203.0.113.9") + GET_STATUS)
            await node.node.drain()
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()


class TestForwarded:
    TRUSTING = {"proxy.trusted": ["127.0.0.0/8", "10.0.0.0/8"]}  # noqa: RUF012 -- never changed

    async def visit(self, node: RunningNode, forwarded: str) -> None:
        """Use a WebSocket, an event stream, a poll and a health check."""
        field = f"X-Forwarded-For: {forwarded}"
        base = f"http://localhost:{node.client_port}"
        async with connect(node.url(), additional_headers={"X-Forwarded-For": forwarded}) as browser:
            await command(browser, "subscribe", ["a"])
        async with event_source(f"{base}/events?channel=a", "-H", field):
            pass
        await curl(f"{base}/poll?channel=a&wait=0", "-H", field)
        await curl(f"{base}/events", "-H", field)

    async def test_logs_contain_the_clients_address(self, caplog: pytest.LogCaptureFixture) -> None:
        async with running_node(client=self.TRUSTING) as node:
            await self.visit(node, "198.51.100.1, [2001:db8::7]:4711, 10.0.0.1")
        text = logged(caplog)
        assert "connected from 2001:db8::7" in text
        assert text.count("2001:db8::7 subscribes:") == 2
        assert "rejected a request from 2001:db8::7" in text
        assert (
            "127.0.0.1"
            not in text.replace("listens on client 127", "").split("listens on", 1)[1].split("\n", 1)[1]
        )

    async def test_an_untrusted_client_cannot_set_its_address(self, caplog: pytest.LogCaptureFixture) -> None:
        for trusted in ([], ["10.0.0.0/8"]):
            async with running_node(client={"proxy.trusted": trusted}) as node:
                await self.visit(node, "203.0.113.9")
        assert "203.0.113.9" not in logged(caplog)

    async def test_a_proxys_connection_for_several_clients(self, caplog: pytest.LogCaptureFixture) -> None:
        async with running_node(client=self.TRUSTING) as node:
            reader, writer = await asyncio.open_connection("127.0.0.1", node.client_port)
            for browser in (b"203.0.113.1", b"203.0.113.2", b"garbage", b"203.0.113.3"):
                writer.write(POLL % browser)
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await reader.readexactly(int(head.split("Content-Length: ")[1].split("\r\n")[0]))
            writer.close()
        addresses = [line.split()[1] for line in logged(caplog).splitlines() if " subscribes: " in line]
        assert addresses == ["203.0.113.1", "203.0.113.2", "127.0.0.1", "203.0.113.3"]

    async def test_behind_a_load_balancer_and_a_proxy(self, caplog: pytest.LogCaptureFixture) -> None:
        both = {"proxy.protocol": True, "proxy.trusted": ["10.0.0.0/8"]}
        async with running_node(client=both) as node:
            for peer in ("10.0.0.1", "192.0.2.7"):
                answer = await exchange(
                    node,
                    v2(peer) + POLL.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") % b"203.0.113.9",
                )
                assert answer.startswith(b"HTTP/1.1 200")
        addresses = [line.split()[1] for line in logged(caplog).splitlines() if " subscribes: " in line]
        assert addresses == ["203.0.113.9", "192.0.2.7"]
