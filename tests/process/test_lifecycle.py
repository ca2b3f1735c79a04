"""Start, stop, restart and status, with real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
from websockets.sync.client import connect

from aphlict.process.pidfile import is_alive
from tests.support import certificates
from tests.support.installation import Installation, environment
from tests.support.waiting import wait_until


def accepts(port: int) -> bool:
    """Whether someone listens on the port."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_started_means_that_every_listener_accepts(installation: Installation) -> None:
    done = installation.run("start")
    assert (done.returncode, accepts(installation.client_port), accepts(installation.admin_port)) == (
        0,
        True,
        True,
    )
    assert "Started" in done.stdout
    assert f"Using the configuration {installation.config}" in done.stdout


def test_the_server_runs_in_a_session_of_its_own(installation: Installation) -> None:
    supervisor = installation.start()
    assert os.getsid(supervisor.pid) not in (os.getsid(0), supervisor.pid)
    assert supervisor.ppid() != os.getpid()
    assert supervisor.cwd() == "/"


def test_the_server_keeps_no_descriptor_of_its_starter(installation: Installation) -> None:
    receiver, sender = os.pipe()
    installation.run("start", pass_fds=[sender])
    os.close(sender)
    assert os.read(receiver, 1) == b""  # would wait for ever if the server had it
    os.close(receiver)


def test_a_second_start_is_refused(installation: Installation) -> None:
    supervisor = installation.start()
    done = installation.run("start")
    assert done.returncode == 77
    assert f"already running: {installation.pidfile} belongs to process {supervisor.pid}" in done.stderr
    assert installation.answers()


def test_stop_ends_everything(installation: Installation) -> None:
    supervisor = installation.start()
    worker = installation.worker()
    done = installation.run("stop")
    assert (done.returncode, is_alive(supervisor), is_alive(worker)) == (0, False, False)
    assert not installation.pidfile.exists()
    assert not accepts(installation.client_port)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_with_an_ascii_encoding(installation: Installation, encoding: str) -> None:
    terminal = {"env": environment(PYTHONIOENCODING=encoding), "encoding": encoding}
    before = installation.start()
    done = installation.run("restart", **terminal)
    assert done.returncode == 0, done
    assert f"Stopping the server (process {before.pid})\\u2026" in done.stdout
    after = installation.supervisor()
    done = installation.run("stop", **terminal)
    assert done.returncode == 0, done
    assert not is_alive(before)
    assert not is_alive(after)


def test_stop_without_a_server_is_fine(installation: Installation) -> None:
    done = installation.run("stop")
    assert (done.returncode, "The server is not running" in done.stdout) == (0, True)


def test_stop_without_a_configuration_that_can_be_read(installation: Installation) -> None:
    supervisor = installation.start()
    installation.config.write_text("{")
    refused = installation.run("stop")
    assert (refused.returncode, is_alive(supervisor)) == (77, True)
    assert "stop --pidfile FILE" in refused.stderr
    done = installation.run("stop", "--pidfile", str(installation.pidfile))
    assert (done.returncode, is_alive(supervisor)) == (0, False)
    assert "Stopped" in done.stdout
    again = installation.run("stop", "--pidfile", str(installation.pidfile))
    assert (again.returncode, "The server is not running" in again.stdout) == (0, True)


def test_restart_starts_another_process(installation: Installation) -> None:
    before = installation.start()
    done = installation.run("restart")
    assert done.returncode == 0
    assert installation.supervisor().pid != before.pid
    assert installation.answers()


def test_restart_starts_what_does_not_run(installation: Installation) -> None:
    assert installation.run("restart").returncode == 0
    assert installation.answers()


def test_restart_leaves_the_server_alone_if_the_configuration_is_invalid(installation: Installation) -> None:
    installation.start()
    installation.config.write_text("{")
    assert installation.run("restart").returncode == 77
    assert installation.answers()


def test_restart_leaves_the_server_alone_if_its_files_are_invalid(installation: Installation) -> None:
    good = certificates.self_signed().write(installation.folder, "good")
    other = certificates.self_signed().write(installation.folder, "other")
    installation.start()
    content = json.loads(installation.config.read_text())
    for keys in ({**good.settings(), "ssl.cert": other.cert}, {"auth.keys": [good.cert]}):
        changed = {**content["servers"][0], **keys}
        installation.config.write_text(json.dumps({**content, "servers": [changed, content["servers"][1]]}))
        done = installation.run("restart")
        assert (done.returncode, "Stopp" in done.stdout) == (77, False), done
    installation.config.write_text(json.dumps({**content, "user": "nobody-of-that-name"}))
    assert installation.run("restart").returncode == 77
    installation.config.write_text(json.dumps(content))
    assert installation.answers()


def test_the_error_for_a_port_in_use_names_the_process(installation: Installation) -> None:
    code = f"import socket; s = socket.create_server(('127.0.0.1', {installation.admin_port})); print(1); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        done = installation.run("start")
        other.communicate(b"\n")
    assert done.returncode == 1
    assert f"port {installation.admin_port} (127.0.0.1:{installation.admin_port})" in done.stderr
    assert f"is in use by process {other.pid} ({sys.executable}" in done.stderr
    assert not installation.pidfile.exists()
    assert not accepts(installation.client_port)


@pytest.mark.parametrize("workers", [1, 2])
def test_connections_during_a_stop_are_refused(installation: Installation, workers: int) -> None:
    installation.write(workers=workers, drain_time=600)
    supervisor = installation.start()
    with ExitStack() as browsers:
        for _ in range(20):  # whom it takes its time to send away
            browsers.enter_context(connect(f"ws://127.0.0.1:{installation.client_port}/"))
        supervisor.send_signal(signal.SIGTERM)
        for port in (installation.client_port, installation.admin_port):
            wait_until(lambda port=port: not accepts(port), "the port to be closed")  # type: ignore[misc]
        wait_until(lambda: len(supervisor.children()) == workers, "only those with browsers to go on")
        supervisor.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_alive(supervisor))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_gracefully(installation: Installation, number: signal.Signals) -> None:
    supervisor = installation.start()
    supervisor.send_signal(number)
    wait_until(lambda: not is_alive(supervisor))
    assert installation.logged("the server stopped")
    assert not installation.pidfile.exists()


def test_a_second_signal_stops_immediately(installation: Installation) -> None:
    installation.write(drain_delay=600)
    supervisor = installation.start()
    worker = installation.worker()
    supervisor.terminate()
    wait_until(lambda: installation.logged("stopping (SIGTERM)"))
    began = time.monotonic()
    supervisor.terminate()
    wait_until(lambda: not is_alive(supervisor) and not is_alive(worker), timeout=5)
    assert time.monotonic() - began < 3
    assert not installation.pidfile.exists()


def test_a_killed_worker_is_replaced_while_the_ports_stay_open(installation: Installation) -> None:
    supervisor = installation.start()
    worker = installation.worker()
    worker.kill()
    assert accepts(installation.client_port)
    assert installation.next_worker(worker).ppid() == supervisor.pid
    assert installation.logged(f"worker {worker.pid} exited after")
    assert installation.logged("killed by SIGKILL")


def test_the_delay_before_a_restart_grows(installation: Installation) -> None:
    installation.start()
    worker = installation.worker()
    for pause in ("0.1", "0.5", "1"):
        worker.kill()
        worker = installation.next_worker(worker)
        assert installation.logged(f"restarting it in {pause} s")


def test_a_killed_supervisor_leaves_nothing_behind(installation: Installation) -> None:
    supervisor = installation.start()
    worker = installation.worker()
    supervisor.kill()
    wait_until(lambda: not is_alive(worker))
    assert not accepts(installation.client_port)
    assert installation.run("status").returncode == 1
    assert installation.run("start").returncode == 0
    assert installation.logged(f"process {supervisor.pid} no longer exists")


def test_start_right_after_a_killed_supervisor_waits_for_its_worker(installation: Installation) -> None:
    installation.start().kill()
    assert installation.run("start").returncode == 0


def test_stop_kills_a_server_that_does_not_exit(installation: Installation) -> None:
    supervisor = installation.start()
    worker = installation.worker()
    supervisor.suspend()
    worker.suspend()
    began = time.monotonic()
    done = installation.run("stop")
    assert done.returncode == 0
    assert 5 <= time.monotonic() - began < 12
    assert "Killed" in done.stdout
    assert not is_alive(worker)


def test_the_supervisor_kills_a_worker_that_does_not_exit(installation: Installation) -> None:
    supervisor = installation.start()
    worker = installation.worker()
    worker.suspend()
    supervisor.terminate()
    wait_until(lambda: not is_alive(supervisor), timeout=12)
    assert installation.logged(f"worker {worker.pid} does not exit: killing it")
