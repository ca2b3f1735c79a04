"""The server in the foreground: debug, systemd, and the terminal that goes away."""

import os
import pty
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

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
def test_it_stays_and_ctrl_c_ends_it_in_good_order(
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
        installation.publish({"subscribers": ["a"], "uniqueID": "traced"})
        process.terminate()
        _, err = process.communicate(timeout=10)
    assert "DEBUG" in err
    assert "traced" in err


def test_a_foreground_start_traces_nothing(installation: Installation) -> None:
    with foreground(installation, "start", "--foreground") as process:
        installation.publish({"subscribers": ["a"], "uniqueID": "traced"})
        process.terminate()
        _, err = process.communicate(timeout=10)
    assert "DEBUG" not in err
    assert "INFO" in err


def test_ctrl_c_twice_ends_at_once(installation: Installation) -> None:
    installation.write(drain_delay=600)
    with foreground(installation, "debug") as process:
        process.send_signal(signal.SIGINT)
        wait_until(lambda: installation.logged("stopping (SIGINT)"))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == 0


def test_ctrl_c_twice_reaches_a_worker_that_had_no_time_for_the_first(installation: Installation) -> None:
    installation.write(drain_delay=600)
    with foreground(installation, "debug") as process:
        worker = installation.worker()
        worker.suspend()
        process.send_signal(signal.SIGINT)
        wait_until(lambda: installation.logged("stopping (SIGINT)"))
        process.send_signal(signal.SIGINT)
        wait_until(lambda: installation.logged("stopping at once (SIGINT again)"))
        worker.resume()
        process.communicate(timeout=10)
    assert process.returncode == 0


def test_the_end_of_its_terminal_ends_it(installation: Installation) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PYTHONPATH"] = str(PROJECT)
        words = installation.words("debug")
        os.execv(words[0], words)
    installation.worker()
    os.close(terminal)  # the kernel sends SIGHUP
    assert os.waitpid(pid, 0)[1] == 0
    assert installation.logged("stopping (the terminal is gone)")
    assert not installation.pidfile.exists()


def test_systemd_is_told(installation: Installation) -> None:
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
