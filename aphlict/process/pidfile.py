"""The pidfile: locked as long as the server lives, and believed only where lock and process agree."""

import fcntl
import os
import time
from pathlib import Path

import psutil

from aphlict.errors import AlreadyRunning, CannotWrite
from aphlict.process.privileges import Owner, make_folder

GLANCE = 0.25  # seconds: another command may hold the lock for an instant to look whether it is held
WRITING = 2.0  # seconds from lock to pid: daemonizing happens between


class Pidfile:
    """A pidfile that this process holds; children that are to outlive the lock must call `forget`."""

    def __init__(self, path: Path, descriptor: int, stale: str | None) -> None:
        """Use `acquire`. `stale` is a sentence about what an earlier server left in it, if anything."""
        self.path = path
        self.stale = stale
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path, owner: Owner | None = None) -> "Pidfile":
        """Lock it. Raises AlreadyRunning when a living server has it, CannotWrite when it cannot be made."""
        make_folder(path.parent, owner)
        try:
            descriptor = _lock(path)
        except BlockingIOError as error:
            process = find_running(path)
            who = f"process {process.pid}" if process else "another process, which keeps it locked"
            raise _running(path, f"{who} (aphlict restart replaces it)") from error
        except OSError as error:
            if isinstance(error, PermissionError) and (process := find_running(path)) is not None:
                raise _running(path, f"process {process.pid} of another user") from error
            raise CannotWrite(f"cannot write the pidfile {path}: {error.strerror}") from error
        if owner is not None:
            owner.take_over(descriptor)
        leftover = _describe_leftover(path, _pid(descriptor))
        os.ftruncate(descriptor, 0)  # what stands in a locked file was written by who has the lock
        return cls(path, descriptor, leftover)

    def write(self, pid: int) -> None:
        """Name the process that the lock stands for. Raises CannotWrite."""
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{pid}\n".encode(), 0)
        except OSError as error:  # a full disk
            raise CannotWrite(f"cannot write the pidfile {self.path}: {error.strerror}") from error

    def release(self) -> None:
        """Take it away, or empty it where its folder allows no more; the lock ends with that."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            os.ftruncate(self._descriptor, 0)
        self.forget()

    def forget(self) -> None:
        """Close this process's copy, so that the lock is the other copies' matter."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def find_running(path: Path) -> psutil.Process | None:
    """Return the process that this pidfile names, if it is proven to be a server of ours, else None.

    Proven: the file is locked, only who has the lock writes into it, and the process is an aphlict. Times prove
    nothing: a clock that is set forward after the start makes every process younger than its pidfile.
    """
    deadline = time.monotonic() + WRITING
    while True:
        locked, pid = _look(path)
        if not locked:
            return None
        if pid is not None:
            return _prove(pid)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)


def _running(path: Path, who: str) -> AlreadyRunning:
    return AlreadyRunning(f"the server is already running: {path} belongs to {who}")


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs: one that has ended stays in the list of processes until its parent looks."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _exists(pid: int) -> bool:
    try:
        return is_alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _lock(path: Path) -> int:
    """Open and lock; again when the file was taken away between the two. Raises BlockingIOError when held."""
    deadline = time.monotonic() + GLANCE
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
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


def _look(path: Path) -> tuple[bool, int | None]:
    """Whether the file is locked, and the pid in it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False, None
    except OSError as error:
        raise CannotWrite(f"cannot read the pidfile {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True, _pid(descriptor)
    else:
        return False, None
    finally:
        os.close(descriptor)


def _pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() and 0 < int(text) < 2**31 else None


def _prove(pid: int) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return process if is_aphlict(process.cmdline()) else None
    except psutil.NoSuchProcess:
        return None


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
