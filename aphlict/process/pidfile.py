"""The pidfile: locked as long as the server lives, and believed only where lock and process agree."""

import fcntl
import os
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from aphlict.errors import AlreadyRunning, FileError
from aphlict.process.privileges import Owner, acting, is_out_of_reach, is_plain, make_folder

GLANCE = 0.25  # seconds: another command may hold the lock for an instant to look whether it is held
WRITING = 2.0  # seconds from lock to pid: daemonizing happens between


class Pidfile:
    """A pidfile whose lock this process holds; children that are to outlive the lock must call `forget`.

    Everyone may read the pidfile. The lock is on a file beside it that only the user of the server can open:
    a lock needs no more than the right to read (flock(2)), and nobody else may keep the server from starting.
    """

    def __init__(
        self, path: Path, lock: int, descriptor: int, stale: str | None, rights: Owner | None
    ) -> None:
        """Use `acquire`. `stale` is a sentence about what an earlier server left in it, if anything."""
        self.path = path
        self.stale = stale
        self._lock = lock
        self._descriptor = descriptor
        self._rights = rights

    @classmethod
    def acquire(cls, path: Path, owner: Owner | None = None) -> "Pidfile":
        """Lock it. Raises AlreadyRunning when a living server has it, FileError when it cannot be made.

        As root, it is opened with the rights of the owner, unless the owner cannot change anything on its way.
        """
        make_folder(path.parent, owner)
        rights = None if owner is None or is_out_of_reach(path.parent, owner) else owner
        with ExitStack() as undo, acting(rights):
            lock, descriptor = _open_both(path, undo)
            _check_ownership(path, descriptor, owner)
            leftover = _describe_leftover(path, _pid(descriptor))
            os.ftruncate(descriptor, 0)  # only the holder of the lock writes into it
            undo.pop_all()
        if owner is not None:
            owner.take_over(lock)
            owner.take_over(descriptor)
        return cls(path, lock, descriptor, leftover, rights)

    def write(self, pid: int) -> None:
        """Name the process that the lock stands for. Raises FileError."""
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{pid}\n".encode(), 0)
        except OSError as error:  # a full disk
            raise FileError(f"cannot write the pidfile {self.path}: {error.strerror}") from error

    def release(self) -> None:
        """Take it away, or empty it where its folder allows no more; the lock ends with that."""
        try:
            with acting(self._rights):
                self.path.unlink(missing_ok=True)
                _lock_of(self.path).unlink(missing_ok=True)
        except OSError:
            os.ftruncate(self._descriptor, 0)
        self.forget()

    def forget(self) -> None:
        """Close this process's copies, so that the lock is the other copies' matter."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            os.close(self._lock)
            self._descriptor = self._lock = -1


def find_running(path: Path) -> psutil.Process | None:
    """Return the process that this pidfile names, if it is proven to be a server of ours, else None.

    Proven: the lock is held, only its holder writes into the pidfile, and the process is an aphlict. Times prove
    nothing: a clock that is set forward after the start makes every process younger than its pidfile. For a user
    who cannot look at the lock, the process has to run as the owner of the pidfile; it cannot be signalled anyway.
    """
    deadline = time.monotonic() + WRITING
    while (locked := _is_locked(path)) is not False:
        pid, writer = _look(path)
        if pid is not None:
            return _prove(pid, writer, locked=locked is True)
        if locked is None or time.monotonic() > deadline:
            return None
        time.sleep(0.02)
    return None


def _open_both(path: Path, undo: ExitStack) -> tuple[int, int]:
    """The locked lock of a pidfile, and the pidfile. Raises AlreadyRunning or FileError."""
    try:
        lock = _lock(_lock_of(path))
        undo.callback(os.close, lock)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        undo.callback(os.close, descriptor)
    except BlockingIOError as error:
        process = find_running(path)
        who = f"process {process.pid}" if process else "another process, which keeps it locked"
        raise _running(path, f"{who} (aphlict restart replaces it)") from error
    except OSError as error:
        if isinstance(error, PermissionError) and (process := find_running(path)) is not None:
            raise _running(path, f"process {process.pid} of another user") from error
        raise FileError(f"cannot write the pidfile {path}: {error.strerror}") from error
    return lock, descriptor


def _check_ownership(path: Path, descriptor: int, owner: Owner | None) -> None:
    """Raise FileError for a file that is not a pidfile of ours: it would be emptied."""
    status = os.fstat(descriptor)
    users = {os.geteuid(), os.geteuid() if owner is None else owner.uid}
    if not is_plain(status) or status.st_uid not in users:
        expected = "a plain file of the server's user with one name, or none"
        raise FileError(
            f"cannot write the pidfile {path}: it belongs to user {status.st_uid}, expected {expected}"
        )


def _running(path: Path, who: str) -> AlreadyRunning:
    return AlreadyRunning(f"the server is already running: {path} belongs to {who}")


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs: one that has ended stays in the list of processes until its parent looks."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # /proc is mounted with hidepid
        return psutil.pid_exists(process.pid)


def _exists(pid: int) -> bool:
    try:
        return is_alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _lock(path: Path) -> int:
    """Open and lock; again when the file was taken away between the two. Raises BlockingIOError when held."""
    deadline = time.monotonic() + GLANCE
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise
            time.sleep(0.02)
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_locked(path: Path) -> bool | None:
    """Whether the lock of a pidfile is held; None where this user cannot know. Raises FileError."""
    try:
        descriptor = _open(_lock_of(path))
    except FileNotFoundError:
        return False
    except PermissionError:
        return None
    except OSError as error:
        raise FileError(f"cannot read the lock of the pidfile {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _look(path: Path) -> tuple[int | None, int]:
    """The pid in a pidfile, and the user that owns it. Raises FileError."""
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        return None, -1
    except OSError as error:
        raise FileError(f"cannot read the pidfile {path}: {error.strerror}") from error
    try:
        return _pid(descriptor), os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() and 0 < int(text) < 2**31 else None


def _prove(pid: int, writer: int, *, locked: bool) -> psutil.Process | None:
    """The process, if it is a server of ours: an aphlict, and where the lock was not seen, one of the writer."""
    try:
        process = psutil.Process(pid)
        is_ours = is_aphlict(process.cmdline()) and (locked or process.uids().effective == writer)
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:  # /proc is mounted with hidepid: the lock has to suffice
        return process if locked else None
    return process if is_ours else None


def is_aphlict(command: list[str]) -> bool:
    """Whether a command line is one that starts this program: `…/aphlict start`, `python -m aphlict start`."""
    return any(
        Path(argument).name == "aphlict" or "/aphlict/__main__" in argument for argument in command[:4]
    )


def _describe_leftover(path: Path, pid: int | None) -> str | None:
    if pid is None:
        return None
    what = "is no server of ours" if _exists(pid) else "no longer exists"
    return f"replaced the stale pidfile {path}: process {pid}, which it names, {what}"
