"""What a process measures of itself for the metrics: pauses of its event loop, descriptors, memory, time."""

import asyncio
import gc
import os
import resource
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from aphlict.core.metrics import LAG, PAUSE, Histogram, Samples, single

INTERVAL = 0.25  # seconds between two measurements of the lag
RECENT = 20  # measurements: those of 5 s
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
_STATM, _DESCRIPTORS = Path("/proc/self/statm"), Path("/proc/self/fd")


class PauseMonitor:
    """Measures how late timers of the event loop run, and how long garbage collections take. Runs from `start` to
    `stop`."""

    def __init__(self) -> None:
        self.lag = Histogram(LAG)
        self._recent: deque[float] = deque(maxlen=RECENT)
        self.pauses = Histogram(PAUSE)
        self._due = 0.0
        self._collecting_since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start, in the running loop."""
        gc.callbacks.append(self._on_collection)
        self._schedule(asyncio.get_running_loop())

    def stop(self) -> None:
        """Stop."""
        gc.callbacks.remove(self._on_collection)
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + INTERVAL
        self._timer = loop.call_at(self._due, self._on_time, loop)

    def _on_time(self, loop: asyncio.AbstractEventLoop) -> None:
        lag = max(0.0, loop.time() - self._due)
        self.lag.observe(lag)
        self._recent.append(lag)
        self._schedule(loop)

    def _on_collection(self, phase: str, _info: Mapping[str, int]) -> None:
        if phase == "start":
            self._collecting_since = time.perf_counter()
        else:
            self.pauses.observe(time.perf_counter() - self._collecting_since)

    def recent_lag(self) -> float:
        """Return the highest of the last measurements."""
        return max(self._recent, default=0.0)

    def samples(self) -> Samples:
        """Return the samples."""
        return {**self.lag.samples(), **self.pauses.samples()}


class ProcessMonitor:
    """The resources that this process uses. To read them takes the same time with any number of connections."""

    def __init__(self, sockets: int) -> None:
        """`sockets`: those that are counted now, see `samples`."""
        self._started = time.time()  # the process has just been forked
        self.name = f"{os.getpid()} {self._started}"  # of no other process until the machine is restarted
        self._others = len(list(_DESCRIPTORS.iterdir())) - 1 - sockets  # the descriptor that lists them

    def memory(self) -> int:
        """Return the resident memory in bytes."""
        return int(_STATM.read_text().split()[1]) * _PAGE_SIZE

    def samples(self, sockets: int) -> Samples:
        """Return the samples; `sockets` are those that come and go."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Its size is the number of descriptors since Linux 6.2; a list of 100,000 would take 50 ms.
        open_files = _DESCRIPTORS.stat().st_size or self._others + sockets
        return single(
            {
                "process_cpu_seconds_total": usage.ru_utime + usage.ru_stime,
                "process_resident_memory_bytes": self.memory(),
                "process_start_time_seconds": self._started,
                "process_open_fds": open_files,
                "process_max_fds": allowed,
                "aphlict_descriptors_used_ratio": open_files / allowed,
            }
        )
