"""GET /overview with workers: one overview of all processes, and what the supervisor logged."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.browsing import listening_to, receive
from tests.support.installation import Installation, installed
from tests.support.waiting import wait_until

WORKERS = 2
CLIENTS = 12  # which the kernel distributes over the edges


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Installation]:
    """A running server of one hub and two edges."""
    with installed(tmp_path, workers=WORKERS) as installation:
        installation.start()
        wait_for(installation, lambda found: len(found["processes"]) == WORKERS + 1)
        yield installation
        installation.run("stop")


def wait_for(server: Installation, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Wait for an overview: a new one is made every two seconds."""

    def find() -> dict[str, Any] | None:
        found = server.answers("/overview")
        return found if found is not None and condition(found) else None

    found = wait_until(find, "the overview")
    assert found is not None
    return found


def events(found: dict[str, Any], process: str) -> list[str]:
    return [each["event"] for each in found["events"] if each["process"] == process]


def test_all_processes(server: Installation) -> None:
    with ExitStack() as stack:
        browsers = [stack.enter_context(listening_to(server.client_port, "a")) for _ in range(CLIENTS)]
        server.publish("a")
        for browser in browsers:
            receive(browser, 1)
        found = wait_for(server, lambda found: found["figures"]["deliveries"] == CLIENTS)
    names = [each["name"] for each in found["processes"]]
    assert names == ["hub", "edge 1", "edge 2"]
    assert found["processes_expected"] == WORKERS + 1
    assert sum(each["connections"] for each in found["processes"]) == CLIENTS
    assert found["figures"]["connections"]["websocket"] == CLIENTS
    assert found["figures"]["messages"] == 1
    [instance] = found["instances"]
    assert (instance["instance"], instance["connections"], instance["messages"]) == ("default", CLIENTS, 1)
    assert found["channels"] == [{"instance": "default", "channel": "a", "subscribers": CLIENTS}]
    for name in names:
        assert "listening" in events(found, name)
    times = [each["time"] for each in found["events"]]
    assert times == sorted(times)
    wait_for(server, lambda found: found["series"]["connections"])


def test_lines_of_the_supervisor(server: Installation) -> None:
    """It has no port: the hub has its lines, also one that replaces another, and each of them once."""
    edge, hub = (server.answers("/overview")["processes"][place]["pid"] for place in (1, 0))
    os.kill(edge, signal.SIGKILL)
    found = wait_for(server, lambda found: "worker_exited" in events(found, "supervisor"))
    [exited] = [each for each in found["events"] if each["event"] == "worker_exited"]
    assert exited["level"] == "error"
    assert str(edge) in exited["message"]
    os.kill(hub, signal.SIGKILL)
    found = wait_for(server, lambda found: events(found, "supervisor").count("worker_exited") == 2)
    server.config.write_text("{")
    server.supervisor().send_signal(signal.SIGHUP)
    found = wait_for(server, lambda found: "reload_failed" in events(found, "supervisor"))
    assert events(found, "supervisor").count("worker_exited") == 2


def test_an_edge_that_hangs(server: Installation) -> None:
    hung = server.answers("/overview")["processes"][1]
    os.kill(hung["pid"], signal.SIGSTOP)
    try:
        found = wait_for(server, lambda found: len(found["processes"]) == WORKERS)
        assert found["processes_expected"] == WORKERS + 1
        assert hung["name"] not in [each["name"] for each in found["processes"]]
    finally:
        os.kill(hung["pid"], signal.SIGCONT)
    wait_for(server, lambda found: len(found["processes"]) == WORKERS + 1)


def test_lines_that_no_file_has(tmp_path: Path) -> None:
    log = {"path": str(tmp_path / "errors"), "level": "error"}
    with installed(tmp_path, logs=[log]) as server:
        server.start()
        found = wait_for(server, lambda found: events(found, "worker"))
        assert "listening" in events(found, "worker")
        assert "listens" not in (tmp_path / "errors").read_text()
        server.run("stop")
