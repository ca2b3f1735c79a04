"""`check`: everything that `start` checks, without starting."""

import json
import signal
import socket

import pytest

from aphlict.cli.main import main
from tests.support import certificates
from tests.support.installation import Installation
from tests.support.waiting import wait_until


def test_a_valid_configuration(installation: Installation) -> None:
    done = installation.run("check")
    assert done.returncode == 0
    assert "All ports are free." in done.stdout
    assert not installation.log.exists()
    assert not installation.pidfile.exists()


def test_a_taken_port(installation: Installation) -> None:
    with socket.create_server(("127.0.0.1", installation.client_port)):
        done = installation.run("check")
    assert (done.returncode, "is in use by process" in done.stderr) == (1, True)


def test_the_ports_of_the_running_server_are_not_checked(installation: Installation) -> None:
    supervisor = installation.start()
    done = installation.run("check")
    assert (done.returncode, f"is running (process {supervisor.pid})" in done.stdout) == (0, True)


def test_an_unknown_user(installation: Installation) -> None:
    installation.write(user="no-such-user")
    done = installation.run("check")
    assert (done.returncode, "no-such-user" in done.stderr) == (77, True)


def test_a_log_that_is_a_directory(installation: Installation) -> None:
    installation.log.mkdir(parents=True)
    done = installation.run("check")
    assert (done.returncode, f"cannot write {installation.log}: " in done.stderr) == (1, True)


def test_a_directory_that_this_user_cannot_write_is_a_warning(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.access", lambda *_words: False)  # root may write everywhere
    assert main(["check", "--config", str(installation.config)]) == 0
    assert f"Warning: {installation.folder} is not writable" in capsys.readouterr().err


def with_certificate(installation: Installation, days: float) -> None:
    """Give the client server a certificate that expires in so many days."""
    files = certificates.self_signed(starts=-9, days=days).write(installation.folder)
    servers = json.loads(installation.config.read_text())["servers"]
    servers[0] |= files.settings()
    installation.write(servers=servers)


def test_an_expired_certificate_is_an_error_here_and_a_warning_at_start(installation: Installation) -> None:
    with_certificate(installation, days=-1)
    done = installation.run("check")
    assert (done.returncode, done.stderr.count("expired")) == (77, 1), done.stderr
    done = installation.run("start")
    assert (done.returncode, "expired" in done.stderr) == (0, True), done.stderr
    assert installation.logged("expired")


def test_a_certificate_that_expires_soon_is_a_warning(installation: Installation) -> None:
    with_certificate(installation, days=20)
    done = installation.run("check")
    assert (done.returncode, "Warning: " in done.stderr) == (0, True)


def test_start_and_reload_warn_of_a_certificate_that_expires_soon(
    installation: Installation,
) -> None:
    with_certificate(installation, days=20)
    done = installation.run("start")
    assert (done.returncode, "expires on" in done.stderr) == (0, True)
    assert installation.log.read_text().count("expires on") == 1
    with_certificate(installation, days=10)
    installation.supervisor().send_signal(signal.SIGHUP)
    wait_until(lambda: installation.log.read_text().count("expires on") >= 2, "the warning")


def test_a_key_of_another_certificate(installation: Installation) -> None:
    with_certificate(installation, days=90)
    other = certificates.self_signed().write(installation.folder, "other")
    servers = json.loads(installation.config.read_text())["servers"]
    servers[0]["ssl.key"] = other.key
    installation.write(servers=servers)
    for command in ("check", "start"):
        done = installation.run(command)
        assert (done.returncode, "ssl.key" in done.stderr) == (77, True)
