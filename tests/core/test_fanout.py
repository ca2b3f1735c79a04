"""The fan-out with a receiver that raises."""

import pytest

from aphlict.core.fanout import SLICE
from aphlict.core.message import Delivery
from tests.support.hub import FakeSubscriber, join, make_hub, publish


class Broken(FakeSubscriber):
    """Raises at the first message."""

    has_failed = False

    def deliver(self, delivery: Delivery, /) -> None:
        """Raise once."""
        if not self.has_failed:
            self.has_failed = True
            raise ZeroDivisionError
        super().deliver(delivery)


def test_an_exception_in_one_delivery_does_not_stop_the_next_ones(caplog: pytest.LogCaptureFixture) -> None:
    hub = make_hub()
    listeners = [join(hub, "A")[0] for _ in range(SLICE)]
    broken = Broken()
    hub.subscribe(hub.join("default", broken), ["A"])
    for name in ("1", "2"):
        publish(hub, name, 0.0)
    while hub.run_slice():
        pass
    assert "internal error during a delivery" in caplog.text
    assert broken.ids == ["2"]
    assert all(each.ids in (["1", "2"], ["2"]) for each in listeners)
    assert (hub.fan_out.queued, hub.fan_out.queued_bytes) == (0, 0)
