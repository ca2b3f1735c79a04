"""The server in the foreground: debug, systemd, and the terminal that goes away."""

import contextlib
import http.client
import json
import os
import pty
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.exceptions import ConnectionClosed

from aphlict.process.pidfile import is_alive
from tests.support.browsing import listening_to, receive
from tests.support.installation import PROJECT, Installation
from tests.support.waiting import wait_until


@contextmanager
def foreground(
    installation: Installation, command: str, *options: str, **more: object
) -> Iterator["subprocess.Popen[str]"]:
    """The server as a child of ours, which answers."""
    with installation.begin(command, *options, **more) as process:
        try:
            installation.worker()
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("command", [("debug",), ("start", "--foreground")])
def test_ctrl_c_stops_a_foreground_server_gracefully(
    installation: Installation, command: tuple[str, ...]
) -> None:
    with foreground(installation, *command) as process:
        worker = installation.worker()
        assert installation.supervisor().pid == process.pid
        worker.send_signal(signal.SIGINT)  # a terminal sends it to both
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "the server stopped" in err
    assert "Traceback" not in err
    assert not installation.pidfile.exists()


def test_debug_traces_every_event(installation: Installation) -> None:
    with foreground(installation, "debug") as process:
        installation.post({"subscribers": ["a"], "uniqueID": "traced"})
        process.terminate()
        _, err = process.communicate(timeout=10)
    assert "DEBUG" in err
    assert "traced" in err


def test_a_foreground_start_traces_nothing(installation: Installation) -> None:
    with foreground(installation, "start", "--foreground") as process:
        installation.post({"subscribers": ["a"], "uniqueID": "traced"})
        process.terminate()
        _, err = process.communicate(timeout=10)
    assert "DEBUG" not in err
    assert "INFO" in err


def test_ctrl_c_twice_stops_immediately(installation: Installation) -> None:
    installation.write(drain_delay=600)
    with foreground(installation, "debug") as process:
        process.send_signal(signal.SIGINT)
        wait_until(lambda: installation.logged("stopping (SIGINT)"))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == 0


def test_ctrl_c_twice_reaches_a_busy_worker(installation: Installation) -> None:
    installation.write(drain_delay=600)
    with foreground(installation, "debug") as process:
        worker = installation.worker()
        worker.suspend()
        process.send_signal(signal.SIGINT)
        wait_until(lambda: installation.logged("stopping (SIGINT)"))
        process.send_signal(signal.SIGINT)
        wait_until(lambda: installation.logged("stopping immediately (second signal: SIGINT)"))
        worker.resume()
        process.communicate(timeout=10)
    assert process.returncode == 0


def test_debug_exits_with_the_status_of_the_server(installation: Installation) -> None:
    installation.write(drain_delay=600)
    with foreground(installation, "debug") as process:
        worker = installation.worker()
        worker.suspend()
        process.terminate()
        wait_until(lambda: installation.logged("stopping (SIGTERM)"))
        process.terminate()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "unclean shutdown: worker: killed by SIGKILL" in err
    assert not is_alive(worker)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_graceful_stop(installation: Installation, number: signal.Signals) -> None:
    """Load balancers, clients and systemd see a graceful shutdown."""
    installation.write(drain_delay=2)
    with (
        foreground(installation, "start", "--foreground") as process,
        listening_to(installation.client_port, "a") as browser,
    ):
        assert state(installation) == (200, "RUNNING")
        process.send_signal(number)
        wait_until(lambda: state(installation) == (503, "STOPPING"), "a state that tells balancers")
        assert installation.post({"subscribers": ["a"], "n": 1})[1]["matched"] == 1
        assert receive(browser, 1)[0]["n"] == 1
        with pytest.raises(ConnectionClosed) as closed:
            browser.recv(timeout=20)
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1001
        process.communicate(timeout=20)
    assert process.returncode == 0


def state(installation: Installation) -> tuple[int, str]:
    """Return the state that load balancers see."""
    client = http.client.HTTPConnection("127.0.0.1", installation.client_port, timeout=5)
    with contextlib.closing(client):
        client.request("GET", "/ws/status")
        answer = client.getresponse()
        return answer.status, json.load(answer)["state"]


def test_closing_the_terminal_stops_it(installation: Installation) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PYTHONPATH"] = str(PROJECT)
        words = installation.words("debug")
        os.execv(words[0], words)
    installation.worker()
    os.close(terminal)  # the kernel sends SIGHUP
    assert os.waitpid(pid, 0)[1] == 0
    assert installation.logged("stopping (the terminal was closed)")
    assert not installation.pidfile.exists()


def ignore_hangup() -> None:
    """Ignore SIGHUP, as nohup(1) does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_nohup_keeps_it_running_without_its_terminal(installation: Installation) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PYTHONPATH"] = str(PROJECT)
        ignore_hangup()
        words = installation.words("start", "--foreground")
        os.execv(words[0], words)
    worker = installation.worker()
    os.close(terminal)  # the kernel sends SIGHUP
    os.kill(pid, signal.SIGHUP)
    os.kill(pid, signal.SIGUSR1)  # comes after it
    wait_until(lambda: installation.logged("reopening the log files"), "the signals to be handled")
    assert not installation.logged("stopping")
    assert installation.worker() == worker
    os.kill(pid, signal.SIGTERM)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_background_start_under_nohup_can_be_reloaded(installation: Installation) -> None:
    assert installation.run("start", preexec_fn=ignore_hangup).returncode == 0
    installation.supervisor().send_signal(signal.SIGHUP)
    wait_until(lambda: installation.logged("reloaded "), "the reload")


def test_systemd_is_notified(installation: Installation) -> None:
    address = installation.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(10)
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "NOTIFY_SOCKET": str(address)}
        with foreground(installation, "start", "--foreground", env=environment) as process:
            assert systemd.recv(100) == b"READY=1"
            process.send_signal(signal.SIGHUP)
            assert systemd.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert systemd.recv(100) == b"READY=1"
            process.terminate()
            assert systemd.recv(100) == b"STOPPING=1"
            process.communicate(timeout=10)


def test_a_peers_authority_that_cannot_be_read_fails_the_start(installation: Installation) -> None:
    installation.write(cluster=[{"host": "a", "port": 1, "protocol": "https", "ssl.ca": "aphlict.json"}])
    done = installation.run("start")
    assert (done.returncode, done.stderr.count("\n")) == (
        77,
        done.stderr.count("aphlict:") + done.stderr.count("Warning:"),
    )
    assert "ssl.ca" in done.stderr
    assert not installation.pidfile.exists()
