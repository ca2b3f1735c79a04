"""GET /metrics: formats, access, and what it counts."""

import asyncio
import gc
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from aphlict.server.measurements import PauseMonitor, ProcessMonitor
from aphlict.server.metrics_page import OPENMETRICS, TEXT, prefers_openmetrics
from tests.support import tokens
from tests.support.certificates import self_signed
from tests.support.curl import curl, event_source
from tests.support.nodes import (
    RunningNode,
    listening,
    receive,
    running_node,
    subscribed,
)
from tests.support.scraping import PROMETHEUS, scrape
from tests.support.waiting import eventually, eventually_async

MAX_SERIES = 100
SECRET, ANOTHER = "a-secret-of-many-letters", "another-secret-of-many-letters"


async def series(node: RunningNode) -> dict[str, float]:
    return (await scrape(node.admin_port)).series


def closed(reason: str) -> str:
    return f'aphlict_connections_closed_total{{reason="{reason}"}}'


@pytest.mark.parametrize(
    ("accept", "is_preferred"),
    [
        (PROMETHEUS, True),
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4", False),
        ("Application/OpenMetrics-Text", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;q=0.5", False),
        ("application/openmetrics-text;version=bad;q=7", True),
        (";;q=,,=", False),
    ],
)
def test_the_format_follows_accept(accept: str, is_preferred: bool) -> None:
    assert prefers_openmetrics(accept) == is_preferred


async def test_both_formats_have_the_same_series() -> None:
    async with running_node() as node:
        text = await scrape(node.admin_port, accept="text/plain")
        openmetrics = await scrape(node.admin_port)
        assert (text.kind, openmetrics.kind) == (TEXT, OPENMETRICS)
        assert sorted(text.series) == sorted(openmetrics.series)


async def test_a_node_has_few_series(tmp_path: Path) -> None:
    files = self_signed().write(tmp_path).settings()
    async with running_node(client=files) as node:
        assert len(await series(node)) < MAX_SERIES, "room for a second certificate"


async def test_the_rules_of_the_admin_port_apply() -> None:
    async with running_node(admin={"admin.secret": SECRET}) as node:
        url = f"http://127.0.0.1:{node.admin_port}/metrics"
        secret = ("-H", f"Authorization: Bearer {SECRET}")
        assert (await curl(url)).status == 401
        assert (await curl(url, *secret)).status == 200
        assert (await curl(url, *secret, "-H", "Origin: https://evil.example")).status == 403
        assert (await curl(url, *secret, "-H", "Host: evil.example")).status == 403
        refused = await curl(url, *secret, "-X", "POST", "-d", "{}")
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
        head = await curl(url, *secret, "-I")
        assert (head.status, head.headers["cache-control"]) == (200, "no-store")
        assert (await curl(f"{url}/", *secret)).status == 404


@pytest.mark.parametrize("admin", [{}, {"admin.secret": SECRET}], ids=["open", "with a secret"])
async def test_the_secret_for_metrics_opens_nothing_else(admin: dict[str, str]) -> None:
    async with running_node(admin={**admin, "metrics.secret": ANOTHER}) as node:
        url, header = f"http://127.0.0.1:{node.admin_port}", ("-H", f"Authorization: Bearer {ANOTHER}")
        assert (await curl(f"{url}/metrics")).status == 401
        assert (await curl(f"{url}/metrics", *header)).status == 200
        assert (await curl(f"{url}/metrics", "-H", f"Authorization: Bearer {ANOTHER}x")).status == 401
        others = 401 if admin else 200
        assert (await curl(f"{url}/status/", *header)).status == others
        assert (await curl(url, "-d", '{"subscribers": []}', *header)).status == others


async def test_messages_and_connections() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        for _ in range(2):
            await node.publish({"subscribers": ["a", "b"], "uniqueID": "u"})
        await receive(browser, 1)
        await node.ask("/", method="POST", body="{")
        found = await series(node)
        expected = {
            "aphlict_ready": 1,
            "aphlict_processes": 1,
            "aphlict_processes_expected": 1,
            'aphlict_connections{transport="websocket"}': 1,
            'aphlict_connections_opened_total{transport="websocket"}': 1,
            "aphlict_subscriptions": 1,
            "aphlict_messages_total": 2,
            "aphlict_duplicates_total": 1,
            "aphlict_deliveries_total": 1,
            "aphlict_history_messages": 1,
            "aphlict_publish_requests_rejected_total": 1,
            "aphlict_publish_duration_seconds_count": 2,
            "aphlict_delivery_duration_seconds_count": 1,
            'aphlict_delivery_duration_seconds_bucket{le="+Inf"}': 1,
        }
        assert {name: found[name] for name in expected} == expected
        assert found["aphlict_publisher_connections"] >= 1
        assert 0 < found["process_open_fds"] < found["process_max_fds"]
        assert 0 < found["process_start_time_seconds"] < time.time()
        assert found["aphlict_connections_limit"] == (await node.status())["connections.max"]
        await browser.close()
        await eventually(lambda: not node.node.hub.connections)
        found = await series(node)
        assert (found['aphlict_connections{transport="websocket"}'], found[closed("client")]) == (0, 1)
        assert found["aphlict_subscriptions"] == 0


async def test_the_figures_are_those_of_the_status() -> None:
    async with running_node() as node:
        await node.ask("/", method="POST", body=json.dumps({"subscribers": ["x" * 300]}))
        await curl(f"http://127.0.0.1:{node.admin_port}/", "-H", "Origin: null")
        found, status = await series(node), await node.status()
        for key, count in status["limits"].items():
            assert found[f'aphlict_limits_reached_total{{limit="{key}"}}'] == count
        for key, count in status["refused"].items():
            assert found[f'aphlict_requests_refused_total{{check="{key}"}}'] == count
        assert status["limits"]["limits.name"] == status["refused"]["admin.pages"] == 1


async def test_event_streams_and_polls() -> None:
    async with running_node() as node:
        url = f"http://127.0.0.1:{node.client_port}"
        async with event_source(f"{url}/events?channel=a"):
            await curl(f"{url}/poll?channel=a&wait=0")
            found = await series(node)
            assert found['aphlict_connections{transport="sse"}'] == 1
            assert found['aphlict_connections{transport="poll"}'] == 0
            assert found['aphlict_connections_opened_total{transport="poll"}'] == 1
            assert found[closed("client")] == 1
        await eventually(lambda: not node.node.hub.connections)
        assert (await series(node))[closed("client")] == 2


async def test_a_request_that_is_rejected_counts_as_no_connection() -> None:
    async with running_node(limits__subscriptions=1) as node:
        await curl(f"http://127.0.0.1:{node.client_port}/events?channel=a&channel=b")
        found = await series(node)
        assert found['aphlict_connections_opened_total{transport="sse"}'] == 0
        assert sum(found[name] for name in found if name.startswith("aphlict_connections_closed")) == 0


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def wait_for_the_end(node: RunningNode) -> dict[str, float]:
    """Connect, send nothing more, and return the metrics once the server has closed the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.client_port)
    writer.write(UPGRADE)
    await reader.read()
    writer.close()
    await writer.wait_closed()
    return await series(node)


async def test_a_client_that_presents_no_token(tmp_path: Path) -> None:
    keys = {"auth.keys": [tokens.key_file(tmp_path)]}
    async with running_node(client=keys, limits__handshake=0.5) as node:
        assert (await wait_for_the_end(node))[closed("token")] == 1


async def test_a_client_that_is_silent() -> None:
    async with running_node(ping__interval=0.3, ping__timeout=0.5) as node:
        assert (await wait_for_the_end(node))[closed("timeout")] == 1


async def test_clients_that_missed_messages_and_that_break_the_protocol() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        node.node._on_gap()
        await browser.wait_closed()
        browser = await subscribed(node.url(), "a")
        browser.transport.write(b"\xff\xff")
        await browser.wait_closed()
        found = await series(node)
        assert (found[closed("gap")], found[closed("error")]) == (1, 1)


async def test_clients_at_a_stop() -> None:
    async with running_node() as node:
        url = f"http://127.0.0.1:{node.client_port}"
        browser = await subscribed(node.url(), "a")
        async with event_source(f"{url}/events?channel=a"):
            poll = asyncio.create_task(curl(f"{url}/poll?channel=a&wait=60"))
            await eventually(lambda: node.node.hub.connections == 3)
            await node.node.server.drain()
            await poll
        counters = node.node.server.context.counters.samples()
        assert counters["aphlict_connections_closed_total"]["shutdown"] == 3
        await browser.wait_closed()


async def test_slow_clients() -> None:
    async with running_node(limits__send_buffer=4096) as node:
        _, writer = await asyncio.open_connection("127.0.0.1", node.client_port, limit=1024)
        mask = bytes(4)
        body = json.dumps({"command": "subscribe", "data": ["a"]}).encode()
        writer.write(UPGRADE + bytes((0x81, 0x80 | len(body))) + mask + body)
        await eventually(lambda: node.node.hub.connections and node.node.hub.subscription_memory.count)
        while node.node.hub.connections:
            await node.publish({"subscribers": ["a"], "text": "x" * 65_536})
        found = await series(node)
        assert found[closed("slow")] == found['aphlict_limits_reached_total{limit="limits.send_buffer"}'] == 1
        writer.close()
        await writer.wait_closed()


async def test_peers() -> None:
    with listening() as nobody:
        gone = nobody.getsockname()[1]
    sockets = listening(), listening()
    own = sockets[1].getsockname()[1]
    async with running_node() as other:
        cluster = [{"host": "127.0.0.1", "port": port} for port in (own, other.admin_port, gone)]
        async with running_node(cluster=cluster, sockets=sockets) as node:
            await node.publish({"subscribers": ["a"]})
            up, down = f'{{peer="127.0.0.1:{other.admin_port}"}}', f'{{peer="127.0.0.1:{gone}"}}'

            async def is_sent() -> bool:
                return (await series(node))[f"aphlict_peer_sent_messages_total{up}"] == 1

            await eventually_async(is_sent)
            found = await series(node)
            assert found[f"aphlict_peer_up{up}"] == 1
            assert 0 < found[f"aphlict_peer_round_trip_seconds{up}"] < 5
            assert (found[f"aphlict_peer_up{down}"], found[f"aphlict_peer_queued_messages{down}"]) == (0, 1)
            assert f"aphlict_peer_round_trip_seconds{down}" not in found
            assert not [name for name in found if str(own) in name], "the node itself"


async def test_the_end_of_a_certificate(tmp_path: Path) -> None:
    issued = self_signed(days=20)
    files = issued.write(tmp_path).settings()
    end = x509.load_pem_x509_certificate(issued.own).not_valid_after_utc.timestamp()
    async with running_node(client=files) as node:
        name = f'aphlict_certificate_expiry_timestamp_seconds{{port="{node.client_port}"}}'
        assert (await series(node))[name] == end


async def test_a_pause_of_the_event_loop() -> None:
    async with running_node() as node:
        before = (await series(node))['aphlict_event_loop_lag_seconds_bucket{le="0.5"}']
        time.sleep(1.5)  # noqa: ASYNC251 -- the pause itself

        async def is_measured() -> Any:
            found = await series(node)
            return (
                found["aphlict_event_loop_lag_seconds_count"]
                > found['aphlict_event_loop_lag_seconds_bucket{le="0.5"}']
                >= before
            )

        await eventually_async(is_measured)


async def test_a_monitor_leaves_nothing_behind() -> None:
    before = list(gc.callbacks)
    monitor = PauseMonitor()
    monitor.start()
    gc.collect()
    assert sum(monitor.samples()["aphlict_gc_pause_seconds"].values()) > 0
    monitor.stop()
    assert gc.callbacks == before


def test_descriptors_without_support_of_the_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before Linux 6.2, the size of /proc/self/fd is 0."""
    gc.collect()  # which closes what earlier tests have left
    exact = ProcessMonitor(0).samples(0)["process_open_fds"][""]
    monitor = ProcessMonitor(0)
    empty = tmp_path / "fd"
    empty.touch()
    monkeypatch.setattr("aphlict.server.measurements._DESCRIPTORS", empty)
    # Others in this process may open or close one between the two.
    assert monitor.samples(5)["process_open_fds"][""] == pytest.approx(exact + 5, abs=2)
