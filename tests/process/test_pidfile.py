"""The pidfile: locked, and believed only where lock and process agree."""

import fcntl
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from aphlict.errors import AlreadyRunning, CannotWrite
from aphlict.process.pidfile import Pidfile, find_running, is_alive, is_aphlict
from tests.support.installation import Installation, installed
from tests.support.waiting import wait_until

STRANGER = "import sys; sys.stdin.read()"
LOCKER = (
    "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX); print(1, flush=True); sys.stdin.read()"
)


@contextmanager
def running(code: str, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is no server of ours."""
    command = [sys.executable, "-c", code, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.communicate()


def test_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "pid"
    pidfile = Pidfile.acquire(path)
    pidfile.write(4711)
    assert path.read_text() == "4711\n"
    pidfile.release()
    assert not path.exists()


def test_it_is_locked_as_long_as_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    pidfile = Pidfile.acquire(path)
    with path.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(AlreadyRunning, match="another process, which keeps it locked"):
        Pidfile.acquire(path)
    pidfile.release()
    Pidfile.acquire(path).release()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="cannot make the folder"):
        Pidfile.acquire(tmp_path / "file" / "run" / "pid")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CannotWrite, match="cannot write the pidfile"):
        Pidfile.acquire(tmp_path / "folder")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "valuable").write_text("keep")
    (tmp_path / "pid").symlink_to(tmp_path / "valuable")
    with pytest.raises(CannotWrite):
        Pidfile.acquire(tmp_path / "pid")
    assert (tmp_path / "valuable").read_text() == "keep"


def test_what_an_earlier_server_left_is_told(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with running(STRANGER) as gone:
        pass
    path.write_text(f"{gone.pid}\n")
    stale = Pidfile.acquire(path)
    assert (
        stale.stale
        == f"replaced the stale pidfile {path}: process {gone.pid}, which it names, no longer exists"
    )
    stale.release()


def test_a_foreign_process_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with running(STRANGER) as stranger:
        path.write_text(f"{stranger.pid}\n")
        assert find_running(path) is None
        taken_over = Pidfile.acquire(path)
        assert f"process {stranger.pid}, which it names, is no server of ours" in str(taken_over.stale)
        taken_over.release()


def test_a_lock_alone_is_no_proof(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.touch()
    with running(LOCKER, str(path)) as locker:
        assert locker.stdout
        locker.stdout.readline()
        path.write_text(f"{locker.pid}\n")
        assert find_running(path) is None  # its command line is not ours


def test_a_clock_that_is_set_forward_disproves_nothing(installation: Installation) -> None:
    """To a clock that was an hour late at boot, and then set right, the file is older than its process."""
    supervisor = installation.start()
    os.utime(installation.pidfile, (time.time() - 3600, time.time() - 3600))
    assert f"process {supervisor.pid}" in installation.run("start").stderr
    assert installation.run("status").returncode == 0
    assert installation.run("stop").returncode == 0
    assert not is_alive(supervisor)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_server_of_another_user_is_running() -> None:
    with TemporaryDirectory() as folder:  # pytest's own are root's alone
        Path(folder).chmod(0o755)
        with installed(Path(folder)) as installation:
            supervisor = installation.start()
            os.seteuid(pwd.getpwnam("nobody").pw_uid)
            try:
                with pytest.raises(
                    AlreadyRunning, match=f"belongs to process {supervisor.pid} of another user"
                ):
                    Pidfile.acquire(installation.pidfile)
            finally:
                os.seteuid(0)


def test_what_was_left_in_it_is_not_believed_while_another_has_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with running(STRANGER, "aphlict") as other:
        path.write_text(f"{other.pid}\n")
        pidfile = Pidfile.acquire(path)
        assert path.read_text() == ""
        pidfile.release()


@pytest.mark.parametrize("left", ["", "\n", "none", "-1", "0", "99999999999999", "12 34"])
def test_nonsense_names_nobody(tmp_path: Path, left: str) -> None:
    path = tmp_path / "pid"
    path.write_text(left)
    assert find_running(path) is None
    pidfile = Pidfile.acquire(path)
    assert pidfile.stale is None
    pidfile.release()


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        (["/opt/a/.venv/bin/python", "/opt/a/.venv/bin/aphlict", "start"], True),
        (["python3", "-m", "aphlict", "start"], True),
        (["/usr/bin/python3", "/opt/aphlict/__main__.py", "start"], True),
        (["node", "/opt/aphlict/aphlict_server.js"], False),
        (["vim", "notes"], False),
        ([], False),
    ],
)
def test_command_lines(command: list[str], ours: bool) -> None:
    assert is_aphlict(command) is ours


def test_a_reused_pid_is_never_signalled(installation: Installation) -> None:
    installation.start().kill()
    wait_until(lambda: installation.answers() is None)
    with running(STRANGER) as stranger:
        installation.pidfile.write_text(f"{stranger.pid}\n")
        assert installation.run("stop").returncode == 0
        assert installation.run("status").returncode == 1
        assert installation.run("start").returncode == 0
        assert stranger.poll() is None
    assert installation.logged(f"process {stranger.pid}, which it names, is no server of ours")


def test_simultaneous_starts_make_one_server(installation: Installation) -> None:
    starters = [installation.begin("start") for _ in range(4)]
    results = []
    for starter in starters:
        starter.communicate(timeout=30)
        results.append(starter.returncode)
    assert sorted(results) == [0, 77, 77, 77]
    assert installation.answers()
