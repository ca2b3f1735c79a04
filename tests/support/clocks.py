"""The clock that a node's connections go by, set by hand."""

import time

from tests.support.nodes import RunningNode


class Clock:
    """Stands still, however long the machine takes, until a test moves it: deadlines, tokens and pauses go by it."""

    def __init__(self) -> None:
        self.now = float(round(time.monotonic()))  # so that what is added makes no error

    def monotonic(self) -> float:
        """Part of the module `time`."""
        return self.now

    def advance(self, node: RunningNode, seconds: float) -> None:
        """Let time pass for the connections of a node: when this returns, what was due has been done."""
        self.now += seconds
        node.node.server.tick()
