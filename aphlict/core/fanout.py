"""Fan-out of messages to receivers: short ones immediately, long ones in slices, in order for each instance."""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from inspect import getgeneratorlocals
from types import GeneratorType
from typing import NamedTuple

from aphlict import log_events
from aphlict.core.message import Message
from aphlict.core.subscriptions import ChannelMatch, Group, Instance, Receiver, exclude, group_receivers

log = logging.getLogger(__name__)

SLICE = 256  # deliveries in a row before the loop does other work: about 1 ms
MIN_BUDGET = SLICE // 2  # deliveries left before a slice is requested, which costs 4 µs of the loop
GROUPED_PER_DELIVERY = 16  # receivers that are grouped in the time of one delivery
JOB_BYTES = 1000  # that a queued fan-out takes in addition to its message


class PendingFanOut(NamedTuple):
    """A queued fan-out, and the number of receivers that have yet to get the message."""

    message: Message
    left: int


class FanOut:
    """The fan-outs of all instances.

    `wake` is called when work is queued: then `run_slice` must be called until it returns False. `on_delivered` is
    called when a message has been passed to its last receiver, with the time at which it was accepted.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.queued = 0  # deliveries
        self.queued_bytes = 0  # of the messages of the queued deliveries
        self.on_delivered: Callable[[Message, float], None] | None = None
        self._wake = wake
        self._is_awake = False  # `run_slice` is going to be called
        self._budget = SLICE  # deliveries that may be made before that
        self._busy: deque[Instance] = deque()  # instances with a queue, each once

    def deliver(
        self, instance: Instance, message: Message, without: Collection[Receiver] = (), at: float = 0.0
    ) -> int:
        """Deliver a message, now or from the queue of the instance; return the number of receivers.

        `without`: receivers that had the message before. `at`: when it was accepted.
        """
        matches = instance.index.match(message.channels)
        if without:
            matches = exclude(matches, without)
        if not matches:
            return 0
        max_deliveries = sum(len(receivers) for _, receivers in matches)
        # Behind a queue every message has to wait, or it would overtake those before it.
        if max_deliveries > self._budget or instance.queue:
            unique = set().union(*(each.receivers for each in matches)) if len(matches) > 1 else ()
            matched = len(unique) or max_deliveries
            self.enqueue(instance, self._fan_out(message, matches, matched, at))
        else:
            self._budget -= max_deliveries
            matched = self._deliver_now(message, matches)
            if self.on_delivered is not None:
                self.on_delivered(message, at)
            if self._budget < MIN_BUDGET:
                self._request_slice()
        return matched

    def _deliver_now(self, message: Message, matches: Sequence[ChannelMatch]) -> int:
        if len(matches) == 1:  # of most messages
            name, receivers = matches[0]
            delivery = message.delivery((name,))
            for receiver in receivers:
                receiver.deliver(delivery)
            return len(receivers)
        matched = 0
        for group in group_receivers(matches):
            if isinstance(group, Group):
                matched += len(group.receivers)
                delivery = message.delivery(group.channels)
                for receiver in group.receivers:
                    receiver.deliver(delivery)
        return matched

    def enqueue(self, instance: Instance, job: Iterator[int]) -> None:
        """Run a job after all earlier ones of the instance; it yields the cost of each step, in deliveries."""
        if not instance.queue:
            self._busy.append(instance)
            self._request_slice()
        instance.queue.append(job)

    def _request_slice(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._wake()

    def _fan_out(
        self, message: Message, matches: Sequence[ChannelMatch], matched: int, at: float
    ) -> Iterator[int]:
        """Return a job that delivers a message; its deliveries count as queued from now on."""
        size = JOB_BYTES + message.memory_size
        self.queued += matched
        self.queued_bytes += size
        return self._deliver_in_slices(message, matches, matched, size, at)

    def _deliver_in_slices(
        self, message: Message, matches: Sequence[ChannelMatch], matched: int, size: int, at: float
    ) -> Iterator[int]:
        left = matched
        try:
            for group in group_receivers(matches):
                if isinstance(group, int):
                    yield group // GROUPED_PER_DELIVERY
                    continue
                delivery = message.delivery(group.channels)
                for start in range(0, len(group.receivers), SLICE):
                    part = group.receivers[start : start + SLICE]
                    for receiver in part:
                        receiver.deliver(delivery)
                    self.queued -= len(part)
                    left -= len(part)
                    if not left and self.on_delivered is not None:
                        self.on_delivered(message, at)
                    yield len(part)
        finally:
            self.queued -= left
            self.queued_bytes -= size

    def pending(self, instance: Instance) -> list[PendingFanOut]:
        """Return the queued fan-outs of an instance, in order. For traces: the generators are inspected."""
        jobs = [getgeneratorlocals(job) for job in instance.queue if isinstance(job, GeneratorType)]
        return [
            PendingFanOut(job["message"], job.get("left", job["matched"])) for job in jobs if "message" in job
        ]

    def run_slice(self) -> bool:
        """Do one slice of the queued work, instances in turn; True while there is more."""
        budget = SLICE
        while self._busy and budget > 0:
            instance = self._busy.popleft()
            cost = _step(instance.queue[0])
            if cost is None:
                instance.queue.popleft()
            if instance.queue:
                self._busy.append(instance)
            budget -= cost or 0
        self._budget = SLICE
        self._is_awake = bool(self._busy)
        return self._is_awake


def _step(job: Iterator[int]) -> int | None:
    """Do one step of a job and return its cost; None where the job is done."""
    try:
        return next(job, None)
    except Exception:  # a bug that one job meets must not stop those behind it
        log.exception(log_events.DELIVERY_FAILED)
        return None
