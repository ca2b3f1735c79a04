"""Messages on their way, where one of the receivers has a bug."""

import pytest

from aphlict.core.fanout import SLICE
from tests.support.listeners import Listener, join, make_hub, publish


class Broken(Listener):
    """Fails at the first message."""

    def send(self, frame: bytes, /) -> None:
        """Fail once."""
        if not self.names:
            self.names.append("none")
            raise ZeroDivisionError
        super().send(frame)


def test_a_bug_in_one_delivery_stops_none_behind_it(caplog: pytest.LogCaptureFixture) -> None:
    hub = make_hub()
    listeners = [join(hub, "A")[1] for _ in range(SLICE)]
    broken = Broken()
    hub.subscribe(hub.join("default", broken), ["A"])
    for name in ("1", "2"):
        publish(hub, name, 0.0)
    while hub.work():
        pass
    assert "internal error on a delivery" in caplog.text
    assert broken.names == ["none", "2"]
    assert all(each.names in (["1", "2"], ["2"]) for each in listeners)
    assert (hub.waiting, hub.deliveries.cost) == (0, 0)
