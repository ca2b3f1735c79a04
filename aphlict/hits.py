"""How often each limit was hit, and the lines of the log that tell of it: few, however often that is."""

import logging

log = logging.getLogger(__name__)

MOST_TOLD = 100  # lines of one limit between two sweeps, and entries that are kept for them


class Hits:
    """Counts for the status page; in the log, one line for each limit and address between two sweeps.

    That bounds what goes to the log, for each limit by itself: strangers who run into one do not hide another.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._more: dict[str, dict[str, int]] = {}  # limit to address to how often since it was told
        self._untold: dict[str, int] = {}

    def add(self, limit: str, address: str, detail: str = "") -> None:
        """Count that something from this address ran into the limit, which is named by its configuration key.

        `detail` goes into the line of the log, if there is one: at most one for each address and minute.
        """
        self.count(limit)
        more = self._more.setdefault(limit, {})
        if address in more:
            more[address] += 1
        elif len(more) >= MOST_TOLD:
            self._untold[limit] = self._untold.get(limit, 0) + 1
        else:
            more[address] = 0
            log.warning("%s was hit by %s%s", limit, address, f" ({detail})" if detail else "")

    def count(self, limit: str) -> None:
        """Count what is no news: nothing goes to the log."""
        self.counts[limit] = self.counts.get(limit, 0) + 1

    def sweep(self) -> None:
        """Sum up what was not told of since the last sweep. To be called every minute."""
        for limit, addresses in self._more.items():
            for address, more in addresses.items():
                if more:
                    log.warning("%s was hit by %s %s", limit, address, _times(more))
        for limit, more in self._untold.items():
            log.warning("%s was hit %s, by yet other addresses", limit, _times(more))
        self._more.clear()
        self._untold.clear()


def _times(more: int) -> str:
    return f"{more:,} more time{'s' * (more != 1)}"
