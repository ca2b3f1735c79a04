"""A clock for the connections of a node, which the test sets."""

import time

from tests.support.nodes import RunningNode


class Clock:
    """It stands still until a test advances it. Deadlines, tokens and pauses use it."""

    def __init__(self) -> None:
        self.now = float(round(time.monotonic()))  # so that what is added makes no error

    def monotonic(self) -> float:
        """As in the module `time`."""
        return self.now

    def advance(self, node: RunningNode, seconds: float) -> None:
        """Advance the time of a node's connections, and handle the deadlines that have passed."""
        self.now += seconds
        node.node.server.tick()
