"""Which configuration a command uses, and errors in it, with real processes."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.configuration import write_configuration
from tests.support.installation import PROJECT, Installation


def copy_project(folder: Path) -> Path:
    """Copy the package, with an empty folder for its configuration."""
    shutil.copytree(PROJECT / "aphlict", folder / "aphlict", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "conf" / "aphlict").mkdir(parents=True)
    return folder


def first_line(project: Path, *words: str) -> str:
    """Return the first line that a copy of the project prints, run from another folder."""
    environment = {**os.environ, "PYTHONPATH": str(project)}
    command = [sys.executable, "-m", "aphlict", *words]
    with subprocess.Popen(
        command, env=environment, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        out, _ = process.communicate(timeout=30)
    return str(out).splitlines()[0]


def test_the_given_file_then_the_custom_one_then_the_default(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    default, custom = (project / f"conf/aphlict/aphlict.{name}.json" for name in ("default", "custom"))
    assert f"{default} does not exist" in first_line(project, "status")
    for path in (default, custom):
        path.write_bytes(write_configuration(tmp_path).read_bytes())
        assert first_line(project, "status") == f"Using the configuration {path}"
    named = tmp_path / "aphlict.json"
    assert first_line(project, "status", "--config", str(named)) == f"Using the configuration {named}"


@pytest.mark.parametrize("command", ["check", "start", "restart", "status", "stop"])
def test_every_command_prints_its_file(installation: Installation, command: str) -> None:
    assert installation.run(command).stdout.startswith(f"Using the configuration {installation.config}\n")


def test_debug_prints_its_file(installation: Installation) -> None:
    with installation.begin("debug") as process:
        assert process.stdout
        assert process.stdout.readline() == f"Using the configuration {installation.config}\n"
        installation.worker()
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize("command", ["check", "start", "restart", "debug"])
def test_errors_are_reported_before_a_port_is_opened(installation: Installation, command: str) -> None:
    installation.write(logs="none")
    with socket.create_server(("127.0.0.1", installation.client_port)):
        done = installation.run(command)
    assert done.returncode == 77
    assert 'logs is "none", expected a list of objects' in done.stderr
    assert not installation.pidfile.parent.exists()


@pytest.mark.parametrize("command", ["start", "restart", "debug"])
def test_a_port_in_use(installation: Installation, command: str) -> None:
    with socket.create_server(("127.0.0.1", installation.client_port)):
        done = installation.run(command)
    assert done.returncode == 1
    assert f"port {installation.client_port} " in done.stderr
    assert f"is in use by process {os.getpid()}" in done.stderr


def test_a_restart_with_a_port_in_use(installation: Installation) -> None:
    installation.start()
    servers = json.loads(installation.config.read_text())["servers"]
    with socket.create_server(("127.0.0.1", 0)) as other:
        servers[0]["port"] = other.getsockname()[1]
        installation.write(servers=servers)
        done = installation.run("restart")
    assert (done.returncode, "is in use by process" in done.stderr) == (1, True)


def test_debug_while_a_server_is_running(installation: Installation) -> None:
    installation.start()
    done = installation.run("debug")
    assert (done.returncode, "already running" in done.stderr) == (77, True)
    assert installation.answers()


def test_missing_folders_are_created(installation: Installation) -> None:
    log = installation.folder / "some" / "where" / "a.log"
    pidfile = installation.folder / "else" / "where" / "a.pid"
    installation.write(logs=[{"path": str(log)}], pidfile=str(pidfile))
    with installation.begin("debug") as process:
        installation.worker()
        assert pidfile.read_text() == f"{process.pid}\n"
        process.terminate()
        process.communicate(timeout=20)
    assert "the server stopped" in log.read_text()
