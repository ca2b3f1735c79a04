"""SIGHUP: what is good takes over, what is bad is refused."""

import http.client
import json
import os
import re
import resource
import signal
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from aphlict.config.loader import from_keys
from aphlict.config.settings import Settings
from aphlict.process.pidfile import is_alive
from aphlict.process.reload import merge
from tests.support import browsing, certificates
from tests.support.installation import Installation, installed
from tests.support.ports import free_ports
from tests.support.tokens import key_file, pair, token
from tests.support.waiting import wait_until


def hang_up(installation: Installation, supervisor: psutil.Process, expected: str) -> None:
    """Reload, and wait for the line with the result."""
    supervisor.send_signal(signal.SIGHUP)
    wait_until(lambda: installation.logged(expected), expected)


def test_new_limits_apply(installation: Installation) -> None:
    supervisor = installation.start()
    worker = installation.worker()
    assert installation.post({"subscribers": ["a"], "text": "x" * 100})[0] == 200
    installation.write(body=50)
    hang_up(installation, supervisor, "reloaded ")
    assert installation.post({"subscribers": ["a"], "text": "x" * 100})[0] == 413
    assert installation.worker() == worker


@pytest.mark.parametrize("workers", [1, 2])
def test_new_limits_of_connections_apply_and_are_counted(installation: Installation, workers: int) -> None:
    """Existing connections count, in every process."""
    installation.write(workers=workers)
    supervisor = installation.start()
    with ExitStack() as stack:
        opened = [stack.enter_context(browsing.listening_to(installation.client_port, "a")) for _ in range(8)]
        installation.write(workers=workers, connections_address=1, subscriptions=1)
        hang_up(installation, supervisor, "reloaded ")
        wait_until(lambda: is_refused(installation.client_port), "the new limit")
        for browser in opened:
            assert browsing.order(browser, "subscribe", ["b"])["type"] == "error"
    found = installation.answers()["limits"]
    assert found["limits.connections.address"] >= 1
    assert found["limits.subscriptions"] == len(opened)
    assert "limits.subscriptions reached by 127.0.0.1" in installation.log.read_text()
    assert f"limits.subscriptions ({len(opened)} times)" in installation.run("status").stdout
    installation.write(workers=workers)
    supervisor.send_signal(signal.SIGHUP)
    wait_until(lambda: not is_refused(installation.client_port), "the old limit")


def is_refused(port: int) -> bool:
    """Whether a client is rejected because of too many connections from its address."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    client.request("GET", "/status")
    status = client.getresponse().status
    client.close()
    return status == 429


def test_a_restarted_worker_has_the_new_limits(installation: Installation) -> None:
    supervisor = installation.start()
    installation.write(body=50)
    hang_up(installation, supervisor, "reloaded ")
    worker = installation.worker()
    worker.kill()
    installation.next_worker(worker)
    assert installation.post({"subscribers": ["a"], "text": "x" * 100})[0] == 413


def test_an_invalid_configuration_is_rejected(installation: Installation) -> None:
    supervisor = installation.start()
    installation.config.write_text('{"servers": 7}')
    hang_up(installation, supervisor, "reload failed, keeping the current configuration: ")
    assert installation.post({"subscribers": ["a"]})[0] == 200
    assert is_alive(supervisor)


def test_empty_texts_of_an_existing_configuration_mean_not_given(installation: Installation) -> None:
    """For every command, and at a reload: they change nothing."""
    servers = json.loads(installation.config.read_text())["servers"]
    supervisor = installation.start()
    empty = {"ssl.key": "", "ssl.cert": "", "ssl.chain": ""}
    installation.write(servers=[servers[0] | empty, servers[1] | empty | {"listen": ""}], memory_hint=0)
    hang_up(installation, supervisor, f"reloaded {installation.config}")
    assert not installation.logged("restart to apply it")
    for command in ("check", "doctor", "status", "restart"):
        done = installation.run(command)
        assert done.returncode == 0, done


def test_changes_that_require_a_restart_are_logged_and_not_applied(installation: Installation) -> None:
    supervisor = installation.start()
    before = installation.client_port
    servers = json.loads(installation.config.read_text())["servers"]
    servers[0]["port"] = 1
    installation.write(servers=servers, pidfile="elsewhere", body=50)
    hang_up(installation, supervisor, "reloaded ")
    assert installation.logged('"servers[0].port" has changed in')
    assert installation.logged('"pidfile" has changed in')
    worker = installation.worker()
    worker.kill()
    installation.next_worker(worker)
    socket.create_connection(("127.0.0.1", before)).close()
    assert installation.post({"subscribers": ["a"], "text": "x" * 100})[0] == 413
    supervisor.terminate()
    wait_until(lambda: not is_alive(supervisor))
    assert not installation.pidfile.exists()


def test_new_log_files_take_over(installation: Installation) -> None:
    supervisor = installation.start()
    another = installation.folder / "another" / "log"
    installation.write(logs=[{"path": str(another)}])
    supervisor.send_signal(signal.SIGHUP)
    wait_until(lambda: another.exists() and f"reloaded {installation.config}" in another.read_text())
    supervisor.terminate()
    wait_until(lambda: not is_alive(supervisor))
    assert "the server stopped" in another.read_text()
    assert not installation.logged("the server stopped")


def test_new_certificates_apply_and_invalid_ones_are_rejected(tmp_path: Path) -> None:
    authority = certificates.root()
    files = authority.issue("localhost", "first").write(tmp_path)
    with installed(tmp_path) as installation:
        servers = json.loads(installation.config.read_text())["servers"]
        servers[0] |= files.settings()
        installation.write(servers=servers)
        supervisor = installation.start()
        assert "first" in _names(installation.client_port, files.ca)
        authority.issue("localhost", "second").write(tmp_path)
        hang_up(installation, supervisor, "reloaded ")
        assert "second" in _names(installation.client_port, files.ca)
        Path(files.key).write_bytes(b"no key")
        hang_up(installation, supervisor, "keeping the current configuration")
        worker = installation.worker()
        worker.kill()
        installation.next_worker(worker)  # has the good ones from the supervisor's memory
        assert "second" in _names(installation.client_port, files.ca)


def _names(port: int, ca: str) -> set[str]:
    """The names in the certificate of the server on a port."""
    context = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        certificate = sock.getpeercert()
    assert certificate
    return {str(entry[1]) for entry in certificate["subjectAltName"]}


def poll_status(port: int, number: int) -> int:
    """The status of a poll with a token of the key of this number."""
    headers = {"Authorization": f"Bearer {token('a', by=pair('HS256', number))}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/poll?channel=a&wait=0", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_new_keys_apply_and_an_invalid_one_is_rejected(installation: Installation) -> None:
    old, new = (key_file(installation.folder, pair("HS256", each).public, f"{each}.key") for each in (0, 1))
    servers = json.loads(installation.config.read_text())["servers"]

    def status(number: int) -> int:
        return poll_status(installation.client_port, number)

    servers[0]["auth.keys"] = [old]
    installation.write(servers=servers, workers=2)
    supervisor = installation.start()
    assert [status(0), status(1)] == [200, 401]
    key_file(installation.folder, b"short", "0.key")
    hang_up(installation, supervisor, "reload failed, keeping the current configuration: auth.keys[0]")
    assert [status(0), status(1)] == [200, 401]
    for edge in installation.supervisor().children():
        edge.kill()  # those that follow have what was good
    wait_until(lambda: installation.answers() is not None, "the server")
    wait_until(lambda: is_alive(supervisor) and len(supervisor.children()) == 3, "all workers")
    wait_until(lambda: status_or_none(lambda: status(0)) == 200, "the edges")
    assert [status(0), status(1)] == [200, 401]
    servers[0]["auth.keys"] = [new]
    installation.write(servers=servers, workers=2)
    hang_up(installation, supervisor, "reloaded ")
    wait_until(lambda: [status(0), status(1)] == [401, 200], "both edges to have read it")


def status_or_none(ask: Callable[[], int]) -> int | None:
    """Return the response, or None if no connection is possible."""
    try:
        return ask()
    except OSError:
        return None


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("moved", [0, 1], ids=["its own port", "the port of another server"])
def test_a_revoked_key_is_invalid_where_a_port_has_changed_as_well(
    installation: Installation, moved: int, workers: int
) -> None:
    keys = [key_file(installation.folder, pair("HS256", each).public, f"{each}.key") for each in (0, 1)]
    servers = json.loads(installation.config.read_text())["servers"]
    servers[0]["auth.keys"] = keys
    installation.write(servers=servers, workers=workers)
    supervisor = installation.start()
    assert [poll_status(installation.client_port, each) for each in (0, 1)] == [200, 200]
    servers[0]["auth.keys"] = keys[1:]
    servers[moved]["port"] = free_ports(1)[0]
    installation.write(servers=servers, workers=workers)
    Path(keys[0]).unlink()
    hang_up(installation, supervisor, "reloaded ")
    assert [poll_status(installation.client_port, each) for each in (0, 1)] == [401, 200]
    assert restart_keys(installation) == [f"servers[{moved}].port"]


def restart_keys(installation: Installation) -> list[str]:
    """The keys that the log names as waiting for a restart."""
    return re.findall(r'"([^"]+)" has changed in', installation.log.read_text())


def test_a_removed_server_keeps_its_keys(installation: Installation) -> None:
    """Their files have been deleted too."""
    key = key_file(installation.folder)
    servers = json.loads(installation.config.read_text())["servers"]
    second = free_ports(1)[0]
    both = [*servers, {"type": "client", "port": second, "listen": "127.0.0.1", "auth.keys": [key]}]
    installation.write(servers=both)
    supervisor = installation.start()
    Path(key).unlink()
    installation.write(servers=servers, body=50)
    hang_up(installation, supervisor, "reloaded ")
    assert poll_status(second, 0) == 200
    assert poll_status(second, 1) == 401
    assert restart_keys(installation) == [f"servers (client 127.0.0.1:{second}, removed)"]
    assert installation.post({"subscribers": ["a"], "text": "x" * 100})[0] == 413


class Once:
    """A named pipe whose first reader gets one content, and every later one another."""

    def __init__(self, path: Path, first: bytes, later: bytes) -> None:
        os.mkfifo(path)
        self._path, self._contents, self._later = path, [first], later
        self.readers = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            with self._path.open("wb") as file:  # opens once there is a reader
                self.readers += 1
                file.write(self._contents.pop() if self._contents else self._later)
            wait_until(lambda: not is_read(self._path), "the reader's end")


def is_read(path: Path) -> bool:
    """Whether a named pipe has a reader."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def test_files_are_read_once_for_all_processes(tmp_path: Path) -> None:
    """So that a renewal between two readers cannot give them different certificates."""
    authority = certificates.root()
    old = authority.issue("localhost", "first").write(tmp_path, "old")
    new = authority.issue("localhost", "second").write(tmp_path, "new")
    with installed(tmp_path, workers=2) as installation:
        servers = json.loads(installation.config.read_text())["servers"]
        servers[0] |= old.settings()
        installation.write(servers=servers, workers=2)
        supervisor = installation.start()
        assert "first" in _names(installation.client_port, old.ca)
        pipe = Once(tmp_path / "pipe", Path(new.key).read_bytes(), b"no key")
        servers[0] |= new.settings() | {"ssl.key": str(tmp_path / "pipe")}
        installation.write(servers=servers, workers=2)
        hang_up(installation, supervisor, "reloaded ")
        for _ in range(10):  # both edges
            assert "second" in _names(installation.client_port, new.ca)
        assert pipe.readers == 1


@pytest.fixture
def two(installation: Installation) -> tuple[psutil.Process, psutil.Process]:
    """A server of two edges: its supervisor, and the edge that was forked last."""
    installation.write(workers=2)
    supervisor = installation.start()
    return supervisor, max(supervisor.children(), key=lambda child: child.pid)


NONE_LEFT = (
    3  # a limit of descriptors that leaves none to a process which has these: those that are open stay so
)
REFUSED = "reload failed, keeping the current configuration: edge 2 "


def test_nothing_changes_if_a_worker_has_no_descriptor_left(
    installation: Installation, two: tuple[psutil.Process, psutil.Process]
) -> None:
    supervisor, edge = two
    before, hard = resource.prlimit(edge.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(edge.pid, resource.RLIMIT_NOFILE, (NONE_LEFT, hard))
    another = installation.folder / "another.log"
    installation.write(workers=2, body=50, logs=[{"path": str(another)}])
    hang_up(installation, supervisor, REFUSED)
    assert installation.post({"subscribers": ["a"], "text": "x" * 100})[0] == 200
    assert not installation.logged("reloaded ")
    resource.prlimit(edge.pid, resource.RLIMIT_NOFILE, (before, hard))
    supervisor.send_signal(signal.SIGHUP)
    wait_until(lambda: another.exists() and "reloaded " in another.read_text(), "the next reload")
    assert installation.post({"subscribers": ["a"], "text": "x" * 100})[0] == 413


def test_nothing_changes_if_a_worker_hangs(
    installation: Installation, two: tuple[psutil.Process, psutil.Process]
) -> None:
    supervisor, edge = two
    edge.suspend()
    try:
        installation.write(workers=2, body=50)
        supervisor.send_signal(signal.SIGHUP)
        wait_until(lambda: installation.logged(REFUSED), "the refusal", timeout=30)
    finally:
        edge.resume()
    assert installation.post({"subscribers": ["a"], "text": "x" * 100})[0] == 200
    hang_up(installation, supervisor, "reloaded ")
    assert installation.post({"subscribers": ["a"], "text": "x" * 100})[0] == 413


def test_a_worker_that_exits_during_a_reload_does_not_block_it(
    installation: Installation, two: tuple[psutil.Process, psutil.Process]
) -> None:
    supervisor, edge = two
    edge.suspend()
    installation.write(workers=2, body=50)
    supervisor.send_signal(signal.SIGHUP)
    edge.kill()
    wait_until(lambda: installation.logged("reloaded "), "the reload", timeout=8)
    assert installation.post({"subscribers": ["a"], "text": "x" * 100})[0] == 413


def test_a_reload_during_a_reload_follows_it(
    installation: Installation, two: tuple[psutil.Process, psutil.Process]
) -> None:
    supervisor, edge = two
    edge.suspend()
    for size in (10_000, 50):
        installation.write(workers=2, body=size)
        supervisor.send_signal(signal.SIGHUP)
        wait_until(lambda: supervisor.status() == psutil.STATUS_SLEEPING, "the supervisor to wait")
    edge.resume()
    hang_up(installation, supervisor, "reloaded ")
    wait_until(lambda: installation.post({"subscribers": ["a"], "text": "x" * 100})[0] == 413, "the second")


def settings_of(*servers: dict[str, Any], **keys: Any) -> Settings:
    """Settings with these servers."""
    return from_keys({"servers": servers, "pidfile": "/run/pid", **keys})


CLIENT, ADMIN = {"type": "client", "port": 1}, {"type": "admin", "port": 2}
SECRET, OTHER = "s" * 16, "t" * 16


@pytest.mark.parametrize(
    ("before", "after", "merged", "waiting"),
    [
        ([CLIENT | {"origins": ["https://a"]}, ADMIN], [CLIENT, ADMIN], [CLIENT, ADMIN], []),
        ([CLIENT, ADMIN], [ADMIN, CLIENT], [CLIENT, ADMIN], []),
        (
            [CLIENT | {"origins": ["https://a"]}, ADMIN],
            [CLIENT | {"origins": ["https://b"], "port": 3}, ADMIN],
            [CLIENT | {"origins": ["https://b"]}, ADMIN],
            ["servers[0].port"],
        ),
        (  # what protects the old port must not be taken from it
            [CLIENT, ADMIN | {"admin.secret": SECRET, "listen": "0.0.0.0"}],
            [CLIENT, ADMIN],
            [CLIENT, ADMIN | {"admin.secret": SECRET, "listen": "0.0.0.0"}],
            ["servers[1].listen", "servers[1].admin.secret"],
        ),
        (
            [CLIENT, ADMIN | {"admin.secret": SECRET}],
            [CLIENT, ADMIN | {"admin.secret": OTHER, "listen": "0.0.0.0"}],
            [CLIENT, ADMIN | {"admin.secret": OTHER}],
            ["servers[1].listen"],
        ),
        (
            [CLIENT, ADMIN],
            [CLIENT | {"port": 3, "ssl.key": "/k", "ssl.cert": "/c"}, ADMIN],
            [CLIENT, ADMIN],
            ["servers[0].port", "servers[0].ssl.key", "servers[0].ssl.cert"],
        ),
        (
            [CLIENT | {"ssl.key": "/k", "ssl.cert": "/c", "ssl.chain": "/d"}, ADMIN],
            [CLIENT | {"port": 3, "ssl.key": "/l", "ssl.cert": "/d"}, ADMIN],
            [CLIENT | {"ssl.key": "/l", "ssl.cert": "/d"}, ADMIN],
            ["servers[0].port"],
        ),
        ([CLIENT, ADMIN], [CLIENT, ADMIN, CLIENT | {"port": 3}], [CLIENT, ADMIN], ["servers[2] (new)"]),
    ],
)
def test_which_changes_apply(
    before: list[dict[str, Any]],
    after: list[dict[str, Any]],
    merged: list[dict[str, Any]],
    waiting: list[str],
) -> None:
    assert merge(settings_of(*after), settings_of(*before)) == (settings_of(*merged), waiting)


def test_a_new_secret_for_a_peer_applies_and_a_new_peer_waits() -> None:
    def with_peers(*peers: dict[str, Any]) -> Settings:
        return settings_of(CLIENT, ADMIN, cluster=peers)

    a, b = {"host": "a", "port": 1}, {"host": "b", "port": 1}
    assert merge(with_peers(a | {"secret": OTHER}), with_peers(a)) == (with_peers(a | {"secret": OTHER}), [])
    assert merge(with_peers(b), with_peers(a)) == (with_peers(a), ["cluster"])
