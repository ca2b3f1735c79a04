"""The pidfile: locked, and believed only where lock and process agree."""

import fcntl
import os
import pwd
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from aphlict.errors import AlreadyRunning, FileError
from aphlict.process.pidfile import Pidfile, find_running, is_alive, is_aphlict
from tests.support.installation import Installation, environment, installed
from tests.support.waiting import wait_until

STRANGER = "import sys; sys.stdin.read()"
LOCKER = (
    "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX); print(1, flush=True); sys.stdin.read()"
)


def lock_of(path: Path) -> Path:
    """The file with the lock of a pidfile."""
    return path.with_name(f"{path.name}.lock")


@contextmanager
def running(code: str, *words: str, **more: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is no server of ours."""
    command = [sys.executable, "-c", code, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more) as process:
        yield process
        process.communicate()


def test_missing_folders_are_created(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "pid"
    pidfile = Pidfile.acquire(path)
    pidfile.write(4711)
    assert path.read_text() == "4711\n"
    pidfile.release()
    assert not path.exists()


def test_it_is_locked_as_long_as_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    pidfile = Pidfile.acquire(path)
    with lock_of(path).open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(AlreadyRunning, match="another process, which holds its lock"):
        Pidfile.acquire(path)
    pidfile.release()
    assert not lock_of(path).exists()
    Pidfile.acquire(path).release()


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot create the folder"):
        Pidfile.acquire(tmp_path / "file" / "run" / "pid")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="cannot write the pidfile"):
        Pidfile.acquire(tmp_path / "folder")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "valuable").write_text("keep")
    (tmp_path / "pid").symlink_to(tmp_path / "valuable")
    with pytest.raises(FileError):
        Pidfile.acquire(tmp_path / "pid")
    assert (tmp_path / "valuable").read_text() == "keep"


def test_a_file_with_another_name_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "valuable").write_text("keep")
    (tmp_path / "pid").hardlink_to(tmp_path / "valuable")
    with pytest.raises(FileError):
        Pidfile.acquire(tmp_path / "pid")
    assert (tmp_path / "valuable").read_text() == "keep"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_emptied(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("keep")
    os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
    with pytest.raises(FileError):
        Pidfile.acquire(path)
    assert path.read_text() == "keep"


def test_a_stale_pidfile_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with running(STRANGER) as gone:
        pass
    path.write_text(f"{gone.pid}\n")
    stale = Pidfile.acquire(path)
    assert stale.stale == f"replaced the stale pidfile {path}: its process {gone.pid} no longer exists"
    stale.release()


def test_the_process_of_another_program_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with running(STRANGER) as stranger:
        path.write_text(f"{stranger.pid}\n")
        assert find_running(path) is None
        taken_over = Pidfile.acquire(path)
        assert f"its process {stranger.pid} is not an aphlict server" in str(taken_over.stale)
        taken_over.release()


def test_a_lock_alone_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    lock_of(path).touch()
    with running(LOCKER, str(lock_of(path))) as locker:
        assert locker.stdout
        locker.stdout.readline()
        path.write_text(f"{locker.pid}\n")
        assert find_running(path) is None  # its command line is not ours


def test_a_clock_that_is_set_forward_does_not_matter(installation: Installation) -> None:
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


@pytest.fixture
def public() -> Iterator[Installation]:
    """A server in a folder that other users can reach: pytest's own are root's alone."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with installed(Path(folder)) as made:
            yield made


# Becomes a user without rights, who may not be able to read the program: what it needs has to be loaded before.
BECOME = (
    "import fcntl, os, pwd; user = pwd.getpwnam('nobody'); os.setgroups([]); "
    "os.setresgid(*[user.pw_gid] * 3); os.setresuid(*[user.pw_uid] * 3)"
)
COMMAND = f"""
import encodings.idna, encodings.utf_8_sig, json, shutil, sys
import aphlict.cli.status, aphlict.cli.stop
from aphlict.cli.main import main
{BECOME}
sys.exit(main(sys.argv[4:]))
"""
# Mounts /proc anew, then becomes another program.
HIDING = """
import os, subprocess, sys
subprocess.run(["mount", "-t", "proc", "-o", f"hidepid={sys.argv[1]}", "proc", "/proc"], check=True)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_block_a_start(public: Installation) -> None:
    supervisor = public.start()
    assert stat.S_IMODE(public.pidfile.stat().st_mode) == 0o644, "for monitoring"
    assert stat.S_IMODE(lock_of(public.pidfile).stat().st_mode) == 0o600
    supervisor.kill()
    wait_until(lambda: public.answers() is None, "the end of the worker")
    with running(f"{BECOME}; {LOCKER}", str(public.pidfile)) as locker:
        assert locker.stdout
        assert locker.stdout.readline() == b"1\n"
        done = public.run("start")
    assert done.returncode == 0, done
    assert public.run("stop").returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("hidepid", [None, "1", "2"])
def test_the_status_and_a_stop_by_another_user(public: Installation, hidepid: str | None) -> None:
    """With hidepid, that user cannot see the processes of others (proc(5))."""
    supervisor = public.start()
    hide = [] if hidepid is None else ["unshare", "--mount", sys.executable, "-c", HIDING, hidepid]
    for command, status in (("status", 0 if hidepid is None else 1), ("stop", 1 if hidepid is None else 0)):
        words = [*hide, sys.executable, "-c", COMMAND, *public.words(command)]
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (status, False), done
        assert "unexpected" not in done.stderr
    assert is_alive(supervisor)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_status_and_a_stop_by_the_user_of_the_server_with_hidepid() -> None:
    """A process that gave up root is hidden from its own user too, as it cannot be traced (prctl(2))."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with installed(Path(folder), user="nobody") as installation:
            supervisor = installation.start()
            hide = ["unshare", "--mount", sys.executable, "-c", HIDING, "1"]
            for command in ("status", "stop"):
                words = [*hide, sys.executable, "-c", COMMAND, *installation.words(command)]
                done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
                assert (done.returncode, done.stderr) == (0, ""), done
            assert not is_alive(supervisor)


def test_a_stale_pid_is_not_trusted_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with running(STRANGER, "aphlict") as other:
        path.write_text(f"{other.pid}\n")
        pidfile = Pidfile.acquire(path)
        assert path.read_text() == ""
        pidfile.release()


@pytest.mark.parametrize("left", ["", "\n", "none", "-1", "0", "99999999999999", "12 34"])
def test_an_invalid_pidfile_has_no_process(tmp_path: Path, left: str) -> None:
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
    assert installation.logged(f"its process {stranger.pid} is not an aphlict server")


def test_simultaneous_starts_make_one_server(installation: Installation) -> None:
    starters = [installation.begin("start") for _ in range(4)]
    results = []
    for starter in starters:
        starter.communicate(timeout=30)
        results.append(starter.returncode)
    assert sorted(results) == [0, 77, 77, 77]
    assert installation.answers()
