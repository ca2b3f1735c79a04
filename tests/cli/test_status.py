"""`status`: whether the server is running, and its statistics."""

import json
import signal

import pytest

from aphlict.cli.overview_text import duration
from aphlict.cli.status import format_status
from tests.support import certificates
from tests.support.browsing import listening_to
from tests.support.installation import Installation
from tests.support.waiting import wait_until


def test_nothing_runs(installation: Installation) -> None:
    done = installation.run("status")
    assert (done.returncode, "not running" in done.stdout) == (1, True)
    assert str(installation.log) not in done.stdout
    done = installation.run("status", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, {"running": False})


def test_the_log_of_a_stopped_server(installation: Installation) -> None:
    installation.start()
    installation.run("stop")
    assert str(installation.log) in installation.run("status").stdout


def test_the_text_output(installation: Installation) -> None:
    supervisor = installation.start()
    installation.post({"subscribers": ["a"]})
    done = installation.run("status")
    assert done.returncode == 0
    first, *others = done.stdout.splitlines()[1:]
    assert first.startswith(f"The server is running (process {supervisor.pid}, for ")
    assert [line.split()[0] for line in others] == ["state", "connections", "messages", "memory", "log"]
    assert "limit" in others[1]
    assert "1 in, 0 out" in others[2]
    assert "supervisor" in others[3]
    assert "worker" in others[3]
    assert others[4].endswith(str(installation.log))


def test_a_restarted_worker() -> None:
    facts = {"running": True, "pid": 1, "memory": {"supervisor": 1, "workers": 1}}
    first, second, *_ = format_status(facts | {"age": {"supervisor": 7200.0, "workers": 60.0}}, [])
    assert first == "The server is running (process 1, for 2 hours)."
    assert second.startswith("  worker       restarted 1 minute ago")
    lines = format_status(facts | {"age": {"supervisor": 7200.0, "workers": 7195.0}}, [])
    assert not any("restarted" in line for line in lines)


def test_the_json_output(installation: Installation) -> None:
    supervisor = installation.start()
    installation.post({"subscribers": ["a"]})
    facts = json.loads(installation.run("status", "--json").stdout)
    assert facts["running"] is True
    assert facts["pid"] == supervisor.pid
    assert (facts["connections"], facts["messages.in"], facts["messages.out"]) == (0, 1, 0)
    assert 0 <= facts["uptime"] < 60_000
    assert facts["age"]["supervisor"] >= facts["age"]["workers"] > 0
    assert facts["memory"]["supervisor"] > 2**20
    assert facts["memory"]["workers"] > 2**20
    assert facts["connections.max"] >= 16
    assert facts["connections.bound"] in ("descriptors", "memory")
    assert len(facts["fingerprint"]) == 16
    assert facts["peers"] == []


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_are_listed_with_any_number_of_them(installation: Installation, workers: int) -> None:
    installation.write(workers=workers)
    supervisor = installation.start()
    wait_until(lambda: len(installation.answers()["workers"]) == workers, "all workers")
    with listening_to(installation.client_port, "a"):
        facts = json.loads(installation.run("status", "--json").stdout)
    pids = [each.pid for each in supervisor.children()]
    assert sorted(each["pid"] for each in facts["workers"]) == sorted(pids)
    assert all(each["memory"] > 2**20 and each["age"] > 0 for each in facts["workers"])
    held = [each["connections"] for each in facts["workers"] if "connections" in each]
    assert (len(held), sum(held)) == (workers, 1), "with several workers, the hub has no clients"


def test_the_workers_of_a_server_that_does_not_respond(installation: Installation) -> None:
    installation.start()
    worker = installation.worker()
    worker.send_signal(signal.SIGSTOP)
    facts = json.loads(installation.run("status", "--json").stdout)
    worker.send_signal(signal.SIGCONT)
    assert [sorted(each) for each in facts["workers"]] == [["age", "memory", "pid"]]


def test_each_peer_has_its_line(installation: Installation) -> None:
    peers = [
        {"host": "127.0.0.1", "port": installation.admin_port},
        {"host": "127.0.0.1", "port": 9, "protocol": "https"},
    ]
    installation.write(cluster=peers)
    installation.start()

    def states() -> list[str]:
        return [peer["state"] for peer in installation.answers()["peers"]]

    wait_until(lambda: states() == ["self", "down"])
    itself, down = [line for line in installation.run("status").stdout.splitlines() if "peer " in line]
    assert f"http://127.0.0.1:{installation.admin_port} self" in itself
    assert "https://127.0.0.1:9 down for" in down
    assert "0 queued" in down


def test_a_server_that_does_not_respond_is_running(installation: Installation) -> None:
    installation.start()
    worker = installation.worker()
    worker.send_signal(signal.SIGSTOP)
    done = installation.run("status")
    worker.send_signal(signal.SIGCONT)
    assert done.returncode == 0
    assert "timed out after 2 s" in done.stderr


def test_an_admin_server_with_tls(installation: Installation) -> None:
    files = certificates.self_signed("elsewhere.example").write(installation.folder)
    servers = json.loads(installation.config.read_text())["servers"]
    servers[1] |= files.settings()
    installation.write(servers=servers)
    installation.run("start")
    assert "fingerprint" in json.loads(installation.run("status", "--json").stdout)
    assert json.loads(installation.run("publish", "a", "--message", "x").stdout)["matched"] == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "less than a second"),
        (1, "1 second"),
        (61, "1 minute 1 second"),
        (7200, "2 hours"),
        (90_061, "1 day 1 hour"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
