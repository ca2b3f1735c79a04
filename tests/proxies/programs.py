"""Find proxies, run them without privileges in a temporary folder, and stop them."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from tests.support.waiting import wait_until

NOBODY = "nobody"
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")


def require(program: str, package: str) -> str:
    """Return the path of a program; skip the test if it is missing."""
    search = os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_FOLDERS))
    found = shutil.which(program, path=search)
    if found is not None:
        return found
    pytest.skip(f"{program} is not installed: apt-get install {package}")


def free_port() -> int:
    """Return a free port of the loopback address."""
    return free_ports(1)[0]


@contextmanager
def workplace() -> Iterator[Path]:
    """Return a folder for one run, owned by the user that the program runs as."""
    with tempfile.TemporaryDirectory(prefix="aphlict-proxies-") as name:
        folder = Path(name)
        owner = _owner()
        if owner is not None:
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            folder.chmod(0o755)
        yield folder


def put(folder: Path, name: str, content: str) -> Path:
    """Write a file that the program can read."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o644)
    return path


@contextmanager
def running(command: list[str], folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the block, which begins when it listens on the port."""
    console, owner = folder / "console", _owner()
    with console.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            user=owner and owner.pw_uid,
            group=owner and owner.pw_gid,
            extra_groups=owner and [],
            start_new_session=True,
        )
    try:
        wait_until(_is_up(process, port, console), f"{command[0]} to listen")
        yield process
    finally:
        end(process)


def _owner() -> pwd.struct_passwd | None:
    """Return the user to run programs as if the tests run as root."""
    return pwd.getpwnam(NOBODY) if os.geteuid() == 0 else None


def _is_up(process: subprocess.Popen[bytes], port: int, console: Path) -> Callable[[], bool]:
    def look() -> bool:
        assert process.poll() is None, f"it ended: {console.read_text()}"
        return listens(port)

    return look


def listens(port: int) -> bool:
    """Return whether the port accepts connections."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and its processes: a graceful stop of Apache waits for all open connections."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
