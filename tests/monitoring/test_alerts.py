"""Each alert fires in the fault that it is about, and none does for a healthy server."""

import pytest

from tests.monitoring.prometheus import Prometheus, alert_names
from tests.monitoring.scene import HEALTHY, Scene
from tests.support.waiting import wait_until

TIMEOUT = 60  # seconds
# The server of `Scene` that each alert is about.
FAULTS = {
    "AphlictDown": "gone",
    "AphlictNotReady": "draining",
    "AphlictProcessesMissing": "hung edge",
    "AphlictRestarting": "restarting",
    "AphlictMessagesLost": "receiver",
    "AphlictGaps": "troubled",
    "AphlictSlowClients": "slow clients",
    "AphlictPublishRefused": "troubled",
    "AphlictPeerDown": "sender",
    "AphlictPeerMessagesDropped": "sender",
    "AphlictEventLoopLag": "lagging",
    "AphlictConnectionsFull": "full",
    "AphlictDescriptors": "full",
    "AphlictCertificateExpires": "lagging",
}


def wait_for(scene: Scene, alert: str) -> None:
    """Wait until an alert has fired for its server."""
    target = scene.target(FAULTS[alert])
    wait_until(lambda: scene.prometheus.has_fired(alert, target), alert, timeout=TIMEOUT)


def test_there_is_a_fault_for_each_alert() -> None:
    assert sorted([*FAULTS, "AphlictNotScraped"]) == sorted(alert_names())


@pytest.mark.parametrize("alert", FAULTS)
def test_an_alert_fires(scene: Scene, alert: str) -> None:
    wait_for(scene, alert)


def test_a_prometheus_without_targets(lonely: Prometheus) -> None:
    wait_until(lambda: lonely.has_fired("AphlictNotScraped"), "the alert", timeout=TIMEOUT)


def test_nothing_fires_for_healthy_servers(scene: Scene) -> None:
    for alert in FAULTS:
        wait_for(scene, alert)
    names = {scene.target(name): name for name in HEALTHY}
    fired = scene.prometheus.query('last_over_time(ALERTS{alertstate="firing"}[1h])')
    assert [series.labels for series in fired if series.labels.get("instance") in names] == []
    assert {series.labels["instance"] for series in fired} <= {scene.target(name) for name in FAULTS.values()}
