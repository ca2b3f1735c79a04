"""How often each limit was hit, and the lines of the log that tell of it: few, however often that is."""

import logging

log = logging.getLogger(__name__)

MOST_TOLD = 1000  # lines between two sweeps, and entries that are kept for them


class Hits:
    """Counts for the status page; in the log, one line for each limit and address between two sweeps."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._more: dict[tuple[str, str], int] = {}
        self._untold = 0

    def add(self, limit: str, address: str, detail: str = "") -> None:
        """Count that something from this address ran into the limit, which is named by its configuration key.

        `detail` goes into the line of the log, if there is one: at most one for each address and minute.
        """
        self.count(limit)
        key = limit, address
        if key in self._more:
            self._more[key] += 1
        elif len(self._more) >= MOST_TOLD:
            self._untold += 1
        else:
            self._more[key] = 0
            log.warning("%s was hit by %s%s", limit, address, f" ({detail})" if detail else "")

    def count(self, limit: str) -> None:
        """Count what is no news: nothing goes to the log."""
        self.counts[limit] = self.counts.get(limit, 0) + 1

    def sweep(self) -> None:
        """Sum up what was not told of since the last sweep. To be called every minute."""
        for (limit, address), more in self._more.items():
            if more:
                log.warning("%s was hit by %s %s more time%s", limit, address, f"{more:,}", "s" * (more != 1))
        if self._untold:
            times = f"{self._untold:,} more time{'s' * (self._untold != 1)}"
            log.warning("limits were hit %s, by yet other addresses", times)
        self._more.clear()
        self._untold = 0
