"""How many messages an edge may be sent before it has to report its load again."""

MAX_ROOM = 256  # messages that are published in a row: 4 ms of the hub
FRESH = 1.0  # seconds for which a report counts: browsers come and go meanwhile


class Flow:
    """What is known of one edge's load: its last report, and what it was sent since."""

    __slots__ = ("_flight", "_reach", "_reported", "is_late", "load")

    def __init__(self) -> None:
        self.load = 0.0  # that of its `hub.Hub`, as of its last report
        self.is_late = False  # it let a publisher wait for too long, and has confirmed nothing since
        self._reach = 0.0  # the load that one message adds at most
        self._reported = float("-inf")
        self._flight = 0  # messages that it has not confirmed

    def on_sent(self, messages: int) -> None:
        """So many messages were sent to it, which it will confirm."""
        self._flight += messages

    def on_report(self, load: float, reach: float, now: float, confirmed: int = 0) -> None:
        """It says what its load is, perhaps when it confirms messages."""
        self.load, self._reach, self._reported = load, reach, now
        self._flight -= confirmed
        self.is_late = False

    def room(self, now: float) -> int:
        """How many messages may follow: so many that it is not overloaded if all of its browsers get each of them,
        but one in any case. One that is late does not hold up the others."""
        if self.is_late:
            return MAX_ROOM
        if now > self._reported + FRESH:
            return 1
        room = (1 - self.load) / self._reach if self._reach else MAX_ROOM
        return max(1, min(MAX_ROOM, int(room) - self._flight))
