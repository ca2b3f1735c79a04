"""conf/aphlict.service: how much it forbids, and that the server needs nothing of that."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.proxies.programs import require
from tests.support.certificates import root
from tests.support.installation import COMMAND, PROJECT, Installation
from tests.support.waiting import wait_until

UNIT = PROJECT / "conf" / "aphlict.service"
MOST_EXPOSURE = 2.0
INSIDE = (sys.executable, "-m", "tests.support.sandbox", str(UNIT))
SECRET = "a-secret-of-many-letters"


@pytest.fixture
def systemd_analyze() -> str:
    return require("systemd-analyze", "systemd")


def test_the_unit_is_valid(systemd_analyze: str, tmp_path: Path) -> None:
    unit = tmp_path / "aphlict.service"
    unit.write_text(re.sub(r"(?m)^ExecStart=.*", "ExecStart=/bin/true", UNIT.read_text()))
    done = subprocess.run([systemd_analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, str(unit) in done.stderr) == (0, False), done.stderr


def test_the_unit_leaves_little_open(systemd_analyze: str) -> None:
    command = [systemd_analyze, "security", "--offline=true", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze reads no files; that of version 250 does")
    exposure = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert exposure, done
    assert float(exposure[1]) < MOST_EXPOSURE


def attempt(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*INSIDE, sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=PROJECT
    )


@pytest.mark.parametrize(
    "code",
    [
        "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "import os; os.chroot('/')",
        "import os; os.setuid(1)",
        "import time; time.clock_settime(0, time.time())",
    ],
)
def test_the_sandbox_of_these_tests_is_one(systemd_analyze: str, code: str) -> None:
    done = attempt(code)
    assert done.returncode == 1
    assert re.search(r"PermissionError|Address family not supported", done.stderr), done.stderr
    assert attempt("print('hello')").stdout == "hello\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_the_server_needs_nothing_of_what_is_forbidden(
    systemd_analyze: str, installation: Installation, workers: int, tmp_path: Path
) -> None:
    files = root().issue(client=True).write(tmp_path)
    write(installation, files.settings() | {"ssl.ca": files.ca}, workers)
    command = [*INSIDE, *COMMAND, "start", "--foreground", "--config", str(installation.config)]
    with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True) as server:
        try:
            use(installation)
            server.send_signal(signal.SIGHUP)
            wait_until(lambda: installation.logged("reloaded "), "the reload")
            server.send_signal(signal.SIGUSR1)
            installation.supervisor().children()[0].kill()
            wait_until(lambda: installation.logged("restarting it in"), "the end of a worker")
            use(installation)
            server.terminate()
            _, said = server.communicate(timeout=20)
        finally:
            server.kill()
    assert server.returncode == 0, said
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if " ERROR " in line]
    assert [line for line in errors if "restarting it in" not in line] == []


def write(installation: Installation, admin: dict[str, str | None], workers: int) -> None:
    """With TLS, client certificates and a peer that is looked up by its name."""
    content = json.loads(installation.config.read_text())
    content["servers"][1] |= {"admin.secret": SECRET, **admin}
    peer = {"host": "localhost", "port": installation.admin_port, "protocol": "https"}
    content |= {"workers": workers, "cluster": [peer | {"ssl.ca": admin["ssl.ca"]}]}
    installation.config.write_text(json.dumps(content))


def use(installation: Installation) -> None:
    """Publish to a browser, from the command line."""
    wait_until(lambda: is_joined(installation), "a server that has found itself in its cluster", 20)
    with connect(f"ws://127.0.0.1:{installation.client_port}/ws/") as browser:
        browser.send(json.dumps({"command": "subscribe", "data": ["a"], "id": 1}))
        assert json.loads(browser.recv(5))["type"] == "ack"
        done = installation.run("publish", "a", "--message", "hello")
        assert json.loads(done.stdout)["matched"] == 1, done
        assert json.loads(browser.recv(5))["text"] == "hello"


def is_joined(installation: Installation) -> bool:
    if not installation.pidfile.exists():
        return False
    status = json.loads(installation.run("status", "--json").stdout)
    return [peer["state"] for peer in status.get("peers", ())] == ["self"]
