"""SIGHUP: what is good takes over, what is bad is refused."""

import http.client
import json
import signal
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from aphlict.process.pidfile import is_alive
from tests.support import browsing, certificates
from tests.support.installation import Installation, installed
from tests.support.tokens import key_file, pair, token
from tests.support.waiting import wait_until


def hang_up(installation: Installation, supervisor: psutil.Process, expected: str) -> None:
    """Reload and wait for the line that says what became of it."""
    supervisor.send_signal(signal.SIGHUP)
    wait_until(lambda: installation.logged(expected), expected)


def test_new_limits_take_over(installation: Installation) -> None:
    supervisor = installation.start()
    worker = installation.worker()
    assert installation.publish({"subscribers": ["a"], "text": "x" * 100})[0] == 200
    installation.write(limits_body=50)
    hang_up(installation, supervisor, "read ")
    assert installation.publish({"subscribers": ["a"], "text": "x" * 100})[0] == 413
    assert installation.worker() == worker


@pytest.mark.parametrize("workers", [1, 2])
def test_limits_of_connections_take_over_and_are_counted(installation: Installation, workers: int) -> None:
    """Also for who is in already, and whichever process it came to."""
    installation.write(workers=workers)
    supervisor = installation.start()
    with ExitStack() as stack:
        opened = [stack.enter_context(browsing.listening_to(installation.client_port, "a")) for _ in range(8)]
        installation.write(workers=workers, limits_connections_address=1, limits_subscriptions=1)
        hang_up(installation, supervisor, "read ")
        wait_until(lambda: is_refused(installation.client_port), "the new limit")
        for browser in opened:
            assert browsing.order(browser, "subscribe", ["b"])["type"] == "error"
    found = installation.answers()["limits"]
    assert found["limits.connections.address"] >= 1
    assert found["limits.subscriptions"] == len(opened)
    assert "limits.subscriptions was hit by 127.0.0.1" in installation.log.read_text()
    lines = [line for line in installation.run("status").stdout.splitlines() if " limit " in line]
    assert f"  limit        limits.subscriptions was hit {len(opened)} times" in lines
    installation.write(workers=workers)
    supervisor.send_signal(signal.SIGHUP)
    wait_until(lambda: not is_refused(installation.client_port), "the old limit")


def is_refused(port: int) -> bool:
    """Whether a browser is told that there are too many from its address."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    client.request("GET", "/status")
    status = client.getresponse().status
    client.close()
    return status == 429


def test_a_worker_that_follows_has_the_new_limits_too(installation: Installation) -> None:
    supervisor = installation.start()
    installation.write(limits_body=50)
    hang_up(installation, supervisor, "read ")
    worker = installation.worker()
    worker.kill()
    installation.next_worker(worker)
    assert installation.publish({"subscribers": ["a"], "text": "x" * 100})[0] == 413


def test_a_bad_configuration_is_refused(installation: Installation) -> None:
    supervisor = installation.start()
    installation.config.write_text('{"servers": 7}')
    hang_up(installation, supervisor, "the new configuration is refused, the old one stays in force: ")
    assert installation.publish({"subscribers": ["a"]})[0] == 200
    assert is_alive(supervisor)


def test_empty_texts_of_an_existing_configuration_mean_not_given(installation: Installation) -> None:
    """For every command, and at a reload: they change nothing."""
    servers = json.loads(installation.config.read_text())["servers"]
    supervisor = installation.start()
    empty = {"ssl.key": "", "ssl.cert": "", "ssl.chain": ""}
    installation.write(servers=[servers[0] | empty, servers[1] | empty | {"listen": ""}], memory_hint=0)
    hang_up(installation, supervisor, f"read {installation.config} again")
    assert not installation.logged("at the next restart")
    for command in ("check", "doctor", "status", "restart"):
        done = installation.run(command)
        assert done.returncode == 0, done


def test_what_needs_a_restart_is_told_and_stays(installation: Installation) -> None:
    supervisor = installation.start()
    before = installation.client_port
    servers = json.loads(installation.config.read_text())["servers"]
    servers[0]["port"] = 1
    installation.write(servers=servers, pidfile="elsewhere", limits_body=50)
    hang_up(installation, supervisor, "read ")
    assert installation.logged('"servers" has changed in')
    assert installation.logged('"pidfile" has changed in')
    worker = installation.worker()
    worker.kill()
    installation.next_worker(worker)
    socket.create_connection(("127.0.0.1", before)).close()
    assert installation.publish({"subscribers": ["a"], "text": "x" * 100})[0] == 413
    supervisor.terminate()
    wait_until(lambda: not is_alive(supervisor))
    assert not installation.pidfile.exists()


def test_new_log_files_take_over(installation: Installation) -> None:
    supervisor = installation.start()
    another = installation.folder / "another" / "log"
    installation.write(logs=[{"path": str(another)}])
    supervisor.send_signal(signal.SIGHUP)
    wait_until(lambda: another.exists() and f"read {installation.config} again" in another.read_text())
    supervisor.terminate()
    wait_until(lambda: not is_alive(supervisor))
    assert "the server stopped" in another.read_text()
    assert not installation.logged("the server stopped")


def test_new_certificates_take_over_and_bad_ones_are_refused(tmp_path: Path) -> None:
    authority = certificates.root()
    files = authority.issue("localhost", "first").write(tmp_path)
    with installed(tmp_path) as installation:
        servers = json.loads(installation.config.read_text())["servers"]
        servers[0] |= files.settings()
        installation.write(servers=servers)
        supervisor = installation.start()
        assert "first" in _names(installation.client_port, files.ca)
        authority.issue("localhost", "second").write(tmp_path)
        hang_up(installation, supervisor, "read ")
        assert "second" in _names(installation.client_port, files.ca)
        Path(files.key).write_bytes(b"no key")
        hang_up(installation, supervisor, "is refused, the old one stays in force")
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


def test_keys_are_read_again_and_a_bad_one_is_refused(installation: Installation) -> None:
    old, new = (key_file(installation.folder, pair("HS256", each).public, f"{each}.key") for each in (0, 1))
    servers = json.loads(installation.config.read_text())["servers"]

    def status(number: int) -> int:
        url = f"http://127.0.0.1:{installation.client_port}/poll?channel=a&wait=0"
        request = urllib.request.Request(
            url, headers={"Authorization": f"Bearer {token('a', by=pair('HS256', number))}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    servers[0]["auth.keys"] = [old]
    installation.write(servers=servers, workers=2)
    supervisor = installation.start()
    assert [status(0), status(1)] == [200, 401]
    key_file(installation.folder, b"short", "0.key")
    hang_up(
        installation, supervisor, "the new configuration is refused, the old one stays in force: auth.keys[0]"
    )
    assert [status(0), status(1)] == [200, 401]
    for edge in installation.supervisor().children():
        edge.kill()  # those that follow have what was good
    wait_until(lambda: installation.answers() is not None, "the server")
    wait_until(lambda: is_alive(supervisor) and len(supervisor.children()) == 3, "all workers")
    wait_until(lambda: status_or_none(lambda: status(0)) == 200, "the edges")
    assert [status(0), status(1)] == [200, 401]
    servers[0]["auth.keys"] = [new]
    installation.write(servers=servers, workers=2)
    hang_up(installation, supervisor, "read ")
    wait_until(lambda: [status(0), status(1)] == [401, 200], "both edges to have read it")


def status_or_none(ask: Callable[[], int]) -> int | None:
    """What is answered, or None where nobody is there."""
    try:
        return ask()
    except OSError:
        return None
