"""Messages on their way to browsers: short fan-outs at once, long ones in slices, in order for each instance."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from aphlict.core.message import Message
from aphlict.core.subscriptions import ChannelMatch, Group, Instance, grouped

log = logging.getLogger(__name__)

SLICE = 256  # deliveries made in a row before other work has its turn: about 2 ms
REFILL = (
    SLICE // 2
)  # what is left of the budget when it is filled up again: a turn of the loop for that costs 4 µs
SORTED_FOR_ONE = 16  # receivers that are put into groups in the time that one delivery takes
JOB_COST = 1000  # bytes that Python needs for a fan-out that waits, beside its message


class FanOut:
    """The fan-outs of all instances.

    `wake` is called when there is work for `work()`, which must then be called until it returns False.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.waiting = 0  # deliveries that wait for their turn
        self.cost = 0  # bytes of the messages that they are of
        self._wake = wake
        self._is_awake = False  # `work` is going to be called
        self._budget = SLICE  # deliveries that may be made before it is
        self._busy: deque[Instance] = deque()  # instances whose queue is not empty, each once

    def deliver(self, instance: Instance, message: Message) -> int:
        """Send a message to all who listen, now or in its turn: to how many."""
        heard = instance.channels.heard(message.channels)
        if not heard:
            return 0
        most = sum(len(receivers) for _, receivers in heard)
        if most > self._budget or instance.queue:
            matched = most if len(heard) == 1 else len(set().union(*(each.receivers for each in heard)))
            self.enqueue(instance, self._fan_out(message, heard, matched))
        else:
            self._budget -= most
            matched = self._send_now(message, heard)
            if self._budget < REFILL:
                self._ask_to_work()
        return matched

    def _send_now(self, message: Message, heard: Sequence[ChannelMatch]) -> int:
        matched = 0
        for group in grouped(heard):
            if isinstance(group, Group):
                matched += len(group.receivers)
                delivery = message.delivery(group.channels)
                for receiver in group.receivers:
                    receiver.deliver(delivery)
        return matched

    def enqueue(self, instance: Instance, job: Iterator[int]) -> None:
        """Do this when all that was asked for before is done; the job yields what each of its steps costs."""
        if not instance.queue:
            self._busy.append(instance)
            self._ask_to_work()
        instance.queue.append(job)

    def _ask_to_work(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._wake()

    def _fan_out(self, message: Message, heard: Sequence[ChannelMatch], matched: int) -> Iterator[int]:
        """Send a message to all who listen, in slices: yields what each has cost, in deliveries."""
        cost = JOB_COST + message.cost
        self.waiting += matched
        self.cost += cost
        return self._send_in_slices(message, heard, matched, cost)

    def _send_in_slices(
        self, message: Message, heard: Sequence[ChannelMatch], matched: int, cost: int
    ) -> Iterator[int]:
        left = matched
        try:
            for group in grouped(heard):
                if isinstance(group, int):
                    yield group // SORTED_FOR_ONE
                    continue
                delivery = message.delivery(group.channels)
                for start in range(0, len(group.receivers), SLICE):
                    part = group.receivers[start : start + SLICE]
                    for receiver in part:
                        receiver.deliver(delivery)
                    self.waiting -= len(part)
                    left -= len(part)
                    yield len(part)
        finally:
            self.waiting -= left
            self.cost -= cost

    def work(self) -> bool:
        """Do one slice of what is waiting, instances in turn; True while there is more."""
        budget = SLICE
        while self._busy and budget > 0:
            instance = self._busy.popleft()
            spent = _step(instance.queue[0])
            if spent is None:
                instance.queue.popleft()
            if instance.queue:
                self._busy.append(instance)
            budget -= spent or 0
        self._budget = SLICE
        self._is_awake = bool(self._busy)
        return self._is_awake


def _step(job: Iterator[int]) -> int | None:
    """Do one step of a job: what it has cost, None where the job is done."""
    try:
        return next(job, None)
    except Exception:  # one job's bug must not stop those behind it
        log.exception("internal error on a delivery; please report this")
        return None
