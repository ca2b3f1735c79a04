"""The pidfile: locked while the server lives, and trusted only if its lock and its process confirm it."""

import fcntl
import os
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from aphlict.errors import AlreadyRunning, FileError
from aphlict.log_events import STALE_PIDFILE, Notice
from aphlict.process.privileges import Owner, acting, is_out_of_reach, is_plain, make_folder

LOCK_TIMEOUT = 0.25  # seconds: another command may hold the lock for a moment, to check whether it is held
PID_TIMEOUT = 2.0  # seconds between lock and pid: the server daemonizes meanwhile
RETRY_INTERVAL = 0.02  # seconds


class Pidfile:
    """A pidfile whose lock this process holds. Child processes that may outlive it must call `close`.

    Every user may read the pidfile. The lock is on a file beside it that only the user of the server can open:
    read permission suffices for a lock (flock(2)), and no other user may keep the server from starting.
    """

    def __init__(
        self, path: Path, lock: int, descriptor: int, stale: Notice | None, owner: Owner | None
    ) -> None:
        """Use `acquire`. `stale` is a warning about the pid of an earlier server, if the file has one."""
        self.path = path
        self.stale = stale
        self._lock = lock
        self._descriptor = descriptor
        self._owner = owner

    @classmethod
    def acquire(cls, path: Path, owner: Owner | None = None) -> "Pidfile":
        """Create and lock it. Raises AlreadyRunning if a running server holds it, otherwise FileError.

        As root, it is opened with the privileges of the owner, unless the owner can modify no part of its path.
        """
        make_folder(path.parent, owner)
        acting_owner = None if owner is None or is_out_of_reach(path.parent, owner) else owner
        with ExitStack() as undo, acting(acting_owner):
            lock, descriptor = _open_both(path, undo)
            _check_ownership(path, descriptor, owner)
            leftover = _describe_leftover(path, _pid(descriptor))
            os.ftruncate(descriptor, 0)  # only the holder of the lock writes to it
            undo.pop_all()
        if owner is not None:
            owner.take_over(lock)
            owner.take_over(descriptor)
        return cls(path, lock, descriptor, leftover, acting_owner)

    def write(self, pid: int) -> None:
        """Write the pid of the process that holds the lock. Raises FileError."""
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{pid}\n".encode(), 0)
        except OSError as error:  # a full disk
            raise FileError(f"cannot write the pidfile {self.path}: {error.strerror}") from error

    def release(self) -> None:
        """Remove it, or empty it if its folder does not permit that any more; releases the lock."""
        try:
            with acting(self._owner):
                self.path.unlink(missing_ok=True)
                _lock_of(self.path).unlink(missing_ok=True)
        except OSError:
            os.ftruncate(self._descriptor, 0)
        self.close()

    def close(self) -> None:
        """Close this process's copies of the descriptors. The lock is released when every copy is closed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            os.close(self._lock)
            self._descriptor = self._lock = -1


def find_running(path: Path) -> psutil.Process | None:
    """Return the process in the pidfile if it is verified to be one of our servers, otherwise None.

    Verified: the lock is held, only its holder writes the pidfile, and the command line is that of an aphlict. Times
    are not compared: if the clock is set forward, every process seems younger than its pidfile. For a user who cannot
    check the lock, the process has to belong to the owner of the pidfile; this user cannot signal it anyway.
    """
    deadline = time.monotonic() + PID_TIMEOUT
    while (locked := _is_locked(path)) is not False:
        pid, owner = _read(path)
        if pid is not None:
            return _verify(pid, owner, locked=locked is True)
        if locked is None or time.monotonic() > deadline:
            return None
        time.sleep(RETRY_INTERVAL)
    return None


def _open_both(path: Path, undo: ExitStack) -> tuple[int, int]:
    """Descriptors of the locked lock file and of the pidfile. Raises AlreadyRunning or FileError."""
    try:
        lock = _lock(_lock_of(path))
        undo.callback(os.close, lock)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        undo.callback(os.close, descriptor)
    except BlockingIOError as error:
        process = find_running(path)
        holder = f"process {process.pid}" if process else "another process, which holds its lock"
        raise _running(path, f"{holder} (aphlict restart replaces it)") from error
    except OSError as error:
        if isinstance(error, PermissionError) and (process := find_running(path)) is not None:
            raise _running(path, f"process {process.pid} of another user") from error
        raise FileError(f"cannot write the pidfile {path}: {error.strerror}") from error
    return lock, descriptor


def _check_ownership(path: Path, descriptor: int, owner: Owner | None) -> None:
    """Raise FileError for a file that is not the server's: it would be emptied."""
    status = os.fstat(descriptor)
    users = {os.geteuid(), os.geteuid() if owner is None else owner.uid}
    if not is_plain(status) or status.st_uid not in users:
        expected = "a regular file of the server's user without hard links, or none"
        raise FileError(
            f"cannot write the pidfile {path}: it belongs to user {status.st_uid}, expected {expected}"
        )


def _running(path: Path, holder: str) -> AlreadyRunning:
    return AlreadyRunning(f"the server is already running: {path} belongs to {holder}")


def is_alive(process: psutil.Process) -> bool:
    """Whether it is running. A process that has exited is listed until its parent has reaped it."""
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
    """Open and lock; again if the file was removed between the two. Raises BlockingIOError if the lock is held."""
    deadline = time.monotonic() + LOCK_TIMEOUT
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
            time.sleep(RETRY_INTERVAL)
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_locked(path: Path) -> bool | None:
    """Whether the lock of a pidfile is held; None if this user cannot check. Raises FileError."""
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


def _read(path: Path) -> tuple[int | None, int]:
    """The pid in a pidfile, and the uid of its owner. Raises FileError."""
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


def _verify(pid: int, owner: int, *, locked: bool) -> psutil.Process | None:
    """The process, if its command line is that of an aphlict and, unless `locked`, it belongs to the owner."""
    try:
        process = psutil.Process(pid)
        is_ours = is_aphlict(process.cmdline()) and (locked or process.uids().effective == owner)
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:  # /proc is mounted with hidepid: the lock has to be enough
        return process if locked else None
    return process if is_ours else None


def is_aphlict(command: list[str]) -> bool:
    """Whether a command line starts this program: `…/aphlict start`, `python -m aphlict start`."""
    return any(
        Path(argument).name == "aphlict" or "/aphlict/__main__" in argument for argument in command[:4]
    )


def _describe_leftover(path: Path, pid: int | None) -> Notice | None:
    if pid is None:
        return None
    state = "is not an aphlict server" if _exists(pid) else "no longer exists"
    return Notice(STALE_PIDFILE, path, pid, state)
