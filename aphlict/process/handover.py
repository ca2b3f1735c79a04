"""A reload on its way to the workers: all prepare it, then all switch; where one cannot, nothing changes."""

import contextlib
import logging
import os
import time
from collections.abc import Iterable

from aphlict.config.files import FileReader
from aphlict.errors import CannotReload
from aphlict.process.channel import Commit, Committed, Discard, Prepare, Prepared, Snapshot
from aphlict.process.children import Child
from aphlict.process.launch import Launch, load, log_files
from aphlict.process.logs import open_all
from aphlict.process.reloading import read_again

log = logging.getLogger(__name__)

TIMEOUT = 10.0  # seconds that workers have to prepare, and again to switch


class Handover:
    """One reload. `on_answer`, `on_end` and `on_time` carry it on until it `is_over`; or `discard` ends it."""

    def __init__(self, number: int, launched: Launch, workers: Iterable[Child]) -> None:
        """Read everything again, and have the workers prepare it.

        Raises AphlictError or OSError where it cannot be used: nothing has changed.
        """
        files = FileReader()
        settings, self._waiting = read_again(launched.config, launched.settings, files, launched.files)
        self._loaded = load(settings, files)
        self._log_files = log_files(settings)
        open_all(self._log_files)
        self._launch = launched
        self._number = number
        self._workers = [worker for worker in workers if worker.channel.is_open]  # the others have just ended
        self._silent = list(self._workers)  # those that have to answer
        self.is_committed = False
        self.deadline: float | None = time.monotonic() + TIMEOUT  # monotonic seconds
        try:
            self._hand_on(Snapshot(settings, files.contents))
        except OSError:
            self.discard()
            raise
        self._advance()

    @property
    def is_over(self) -> bool:
        """Whether every worker has switched."""
        return self.is_committed and not self._silent

    def _hand_on(self, snapshot: Snapshot) -> None:
        descriptor = snapshot.write()
        try:
            for worker in self._workers:
                with contextlib.suppress(ConnectionError):  # it has just ended: `on_end` follows
                    worker.channel.send(Prepare(self._number), descriptor)
        finally:
            os.close(descriptor)

    def on_answer(self, worker: Child, answer: Prepared | Committed) -> None:
        """Raises CannotReload where a worker cannot follow: nothing has changed."""
        if answer.number != self._number or worker not in self._silent:
            return  # to one that was given up
        if isinstance(answer, Prepared) and answer.refusal is not None:
            raise CannotReload(f"{worker.name} {worker.pid}: {answer.refusal}")
        self._silent.remove(worker)
        self._advance()

    def on_end(self, worker: Child) -> None:
        """A worker has ended; the next one starts with what is in force then."""
        for workers in (self._workers, self._silent):
            if worker in workers:
                workers.remove(worker)
        self._advance()

    def on_time(self, now: float) -> None:
        """Raises CannotReload where a worker has not prepared in time: nothing has changed."""
        if self.deadline is None or now < self.deadline:
            return
        self.deadline = None
        names = ", ".join(f"{worker.name} {worker.pid}" for worker in self._silent)
        if not self.is_committed:
            raise CannotReload(f"{names} did not answer within {TIMEOUT:g} s")
        log.error(
            "no answer from %s within %g s: it uses the new configuration once it goes on", names, TIMEOUT
        )
        self._silent = []

    def _advance(self) -> None:
        if self._silent or self.is_committed:
            return
        self.is_committed = True
        self.deadline = time.monotonic() + TIMEOUT
        self._silent = list(self._workers)
        self._launch.use(self._loaded, self._log_files)
        for key in self._waiting:
            config = self._launch.config
            log.warning('"%s" has changed in %s: that takes effect at the next restart', key, config)
        self._tell(Commit(self._number))

    def discard(self) -> None:
        """Give up what is not committed."""
        for file in self._log_files:
            file.close()
        self._tell(Discard(self._number))

    def _tell(self, message: Commit | Discard) -> None:
        for worker in self._workers:
            with contextlib.suppress(OSError):  # it has just ended, or hangs
                worker.channel.send(message)
