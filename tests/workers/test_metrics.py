"""GET /metrics with workers: one page for all processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.browsing import listening_to, receive
from tests.support.installation import Installation
from tests.support.scraping import scrape
from tests.support.waiting import eventually, eventually_async

WORKERS = 2
CLIENTS = 12  # which the kernel distributes over the edges
OPEN = 'aphlict_connections{transport="websocket"}'
MAX_SERIES = 100


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Installation]:
    """A running server of one hub and two edges."""
    installation = Installation(tmp_path, workers=WORKERS)
    installation.start()
    yield installation
    installation.run("stop")
    installation.end()


async def series(server: Installation) -> dict[str, float]:
    return (await scrape(server.admin_port)).series


def edges(server: Installation) -> list[int]:
    """The pids of the edges that have joined, those with clients first."""
    workers = (server.answers() or {}).get("workers", ())
    return [each["pid"] for each in sorted(workers, key=lambda each: -each["connections"])]


async def test_the_figures_of_all_processes(server: Installation) -> None:
    await eventually(lambda: len(edges(server)) == WORKERS)
    with ExitStack() as stack:
        browsers = [stack.enter_context(listening_to(server.client_port, "a")) for _ in range(CLIENTS)]
        server.publish("a")
        server.publish("a", uniqueID="u")
        server.publish("a", uniqueID="u")
        for browser in browsers:
            receive(browser, 2)
        found = await series(server)
    expected = {
        "aphlict_processes": WORKERS + 1,
        "aphlict_processes_expected": WORKERS + 1,
        OPEN: CLIENTS,
        "aphlict_subscriptions": CLIENTS,
        "aphlict_messages_total": 3,
        "aphlict_duplicates_total": 1,
        "aphlict_deliveries_total": 2 * CLIENTS,
        "aphlict_history_messages": 2,
        "aphlict_publish_duration_seconds_count": 3,
        "aphlict_connections_limit": server.status()["connections.max"],
    }
    assert {name: found[name] for name in expected} == expected
    assert 2 <= found["aphlict_delivery_duration_seconds_count"] <= 2 * WORKERS
    assert len(found) <= MAX_SERIES


async def test_nothing_decreases_when_an_edge_is_replaced(server: Installation) -> None:
    await eventually(lambda: len(edges(server)) == WORKERS)
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            stack.enter_context(listening_to(server.client_port, "a"))
        server.publish("a")

        async def is_delivered() -> bool:
            return (await series(server))["aphlict_deliveries_total"] == CLIENTS

        await eventually_async(is_delivered)
        killed = edges(server)[0]
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: killed not in edges(server), "its end")
        assert (await series(server))["aphlict_deliveries_total"] == CLIENTS
        await eventually(lambda: len(edges(server)) == WORKERS, "the next one")
        found = await series(server)
        assert (found["aphlict_processes"], found["aphlict_deliveries_total"]) == (WORKERS + 1, CLIENTS)
        assert found[OPEN] < CLIENTS


async def test_an_edge_that_hangs(server: Installation) -> None:
    await eventually(lambda: len(edges(server)) == WORKERS)
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            stack.enter_context(listening_to(server.client_port, "a"))
        opened = 'aphlict_connections_opened_total{transport="websocket"}'
        assert (await series(server))[opened] == CLIENTS
        hung = edges(server)[0]
        os.kill(hung, signal.SIGSTOP)
        try:
            found = await series(server)
        finally:
            os.kill(hung, signal.SIGCONT)
        assert (found["aphlict_processes"], found[opened]) == (WORKERS, CLIENTS)
        assert found[OPEN] < CLIENTS


async def test_without_edges_a_node_is_not_ready(server: Installation) -> None:
    await eventually(lambda: len(edges(server)) == WORKERS)
    assert (await series(server))["aphlict_ready"] == 1
    hung = edges(server)
    for edge in hung:
        os.kill(edge, signal.SIGSTOP)
    try:
        found = await series(server)
        assert server.status()["state"] == "ERROR"
    finally:
        for edge in hung:
            os.kill(edge, signal.SIGCONT)
    assert (found["aphlict_ready"], found["aphlict_processes"]) == (0, 1)


async def test_a_reload_changes_the_secret(server: Installation) -> None:
    secret = "a-secret-of-many-letters"
    server.write(
        workers=WORKERS,
        servers=[
            {"type": "client", "port": server.client_port, "listen": "127.0.0.1"},
            {"type": "admin", "port": server.admin_port, "metrics.secret": secret},
        ],
    )
    server.supervisor().send_signal(signal.SIGHUP)
    await eventually(lambda: server.logged("reloaded "), "the reload")
    assert (await scrape(server.admin_port, secret=secret)).series["aphlict_ready"] == 1
    assert server.answers("/metrics") is None, "401"


def test_commands_do_not_import_what_a_page_needs() -> None:
    program = "import sys, aphlict.node, aphlict.cli.status; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
