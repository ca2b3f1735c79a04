"""Overload: publishers send three times what one core can deliver."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil
import pytest

from tests.faults.crowd import SubscriberSet, crowd
from tests.support.installation import Installation
from tests.support.waiting import wait_until

BROWSERS = 1000
WAITING = 200_000  # deliveries: reached soon, also where a busy machine slows the publishers down
PUBLISHERS = 24  # each with a request under way all the time: together far more than can be delivered
SECONDS = 8.0
PATIENCE = 2.0  # seconds that a publisher waits for its answer
HEALTHY = 3.0  # seconds that a health check may take
GROWTH = 100 * 2**20  # bytes: the history of 64 MiB, and what waits

DELIVERED = 120.0  # seconds until all that waits is delivered: up to a million deliveries in each process


@dataclass
class Storm:
    """The responses that the publishers received."""

    port: int
    until: float
    answers: Counter[int] = field(default_factory=Counter)
    acknowledged: list[str] = field(default_factory=list)
    slowest: float = 0.0
    errors: list[str] = field(default_factory=list)

    def publish(self, publisher: int) -> None:
        """Publish as fast as the server responds; respect `Retry-After`, within reason."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        number = 0
        while time.monotonic() < self.until:
            number += 1
            name = f"{publisher}.{number}"
            try:
                self._publish_one(client, name)
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(repr(error))
                client.close()
        client.close()

    def _publish_one(self, client: http.client.HTTPConnection, name: str) -> None:
        began = time.monotonic()
        client.request("POST", "/", json.dumps({"subscribers": ["storm"], "uniqueID": name}))
        answer = client.getresponse()
        answer.read()
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.answers[answer.status] += 1
        if answer.status == 200:
            self.acknowledged.append(name)
        elif int(answer.headers["Retry-After"]) < 1:
            self.errors.append("Retry-After makes no sense")


def ask_for_health(port: int) -> float:
    """The duration of a health check."""
    began = time.monotonic()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    client.request("GET", "/status")
    assert client.getresponse().status == 200
    client.close()
    return time.monotonic() - began


def blow(installation: Installation) -> tuple[Storm, float, int]:
    """Publish; return the responses, the slowest health check and the maximum of memory."""
    workers = installation.supervisor().children()
    storm = Storm(installation.admin_port, time.monotonic() + SECONDS)
    threads = [threading.Thread(target=storm.publish, args=(each,)) for each in range(PUBLISHERS)]
    for thread in threads:
        thread.start()
    slowest, memory = 0.0, 0
    while time.monotonic() < storm.until:
        slowest = max(slowest, ask_for_health(installation.client_port))
        memory = max(memory, taken(workers))
    for thread in threads:
        thread.join()
    return storm, slowest, memory


def taken(workers: Sequence[psutil.Process]) -> int:
    """The memory of these processes together."""
    return sum(int(each.memory_info().rss) for each in workers)


def check_delivery(gathered: SubscriberSet, storm: Storm) -> None:
    """Each acknowledged message reaches each client once, and nothing else does; no client is disconnected."""
    expected = sorted(storm.acknowledged)
    wait_until(
        lambda: all(len(each) >= len(expected) for each in gathered.heard()), "all to arrive", DELIVERED
    )
    for heard in gathered.heard():
        assert sorted(heard) == expected
    assert gathered.closed == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_storm_is_weathered(installation: Installation, workers: int) -> None:
    installation.write(workers=workers, delivery_queue=WAITING)
    before = taken(installation.start().children())
    with crowd(installation.client_port, "storm", BROWSERS) as gathered:
        storm, slowest, memory = blow(installation)
        print(f"{storm.answers}, slowest answer {storm.slowest:.2f} s, slowest health check {slowest:.2f} s,")
        print(f"memory {before / 2**20:.0f} to {memory / 2**20:.0f} MiB, errors {Counter(storm.errors)}")
        assert storm.errors == []
        assert set(storm.answers) == {200, 503}, "publishers receive Retry-After"
        assert slowest < HEALTHY
        assert memory - before < GROWTH
        check_delivery(gathered, storm)
    assert installation.post({"subscribers": []})[0] == 200
