"""Clients that poll one node or several miss nothing and receive nothing twice."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aphlict.core.history import MAX_AGE, MAX_MERGED_CHANNELS
from aphlict.core.hub import Hub
from aphlict.core.message import digest
from aphlict.core.resume import MAX_RECENT, OVERLAP_SECONDS, ResumeToken
from tests.support.hub import join, make_hub, publish

HOUR = 3600.0


class Reader:
    """A client that polls any node with the token that it received last."""

    def __init__(self, *channels: str) -> None:
        self.channels = channels or ("A",)
        self.names: list[str] = []
        self.last = ""

    def poll(self, hub: Hub, now: float) -> bool:
        """Receive what was published since the last poll; return whether nothing can be missing."""
        fake, subscriber = join(hub, *self.channels)
        early: tuple[bytes, ...] = ()
        recovered = True
        if self.last:
            resumption = hub.resume(subscriber, [self.last], now)
            early, recovered = resumption.early, resumption.recovered
            hub.replay(subscriber, resumption, lambda _recovery: None)
        self.names += fake.ids
        self.last = hub.resume_token_at(subscriber, hub.offset(now), early)
        hub.leave(subscriber)
        return recovered


def test_a_first_poll_starts_at_the_present() -> None:
    hub, reader = make_hub(), Reader()
    publish(hub, "before", 1)
    assert reader.poll(hub, 2)
    publish(hub, "after", 3)
    assert reader.poll(hub, 4)
    assert reader.names == ["after"]


def test_a_client_resumes_from_an_empty_history() -> None:
    hub, reader = make_hub(), Reader()
    reader.poll(hub, 1)
    assert reader.poll(hub, 2)
    publish(hub, "one", 3)
    assert reader.poll(hub, 4)
    assert reader.names == ["one"]


def test_a_client_resumes_from_an_empty_history_at_another_node() -> None:
    here, there, reader = make_hub(), make_hub(), Reader()
    for hour in range(1, 5):
        now = hour * HOUR
        here.sweep(now)
        there.sweep(now)
        assert reader.poll(here, now)
        assert reader.poll(there, now + 25)
        publish(here, f"m{hour}", now + 26)
        publish(there, f"m{hour}", now + 26)
        assert reader.poll(here, now + 27)
        assert reader.poll(there, now + 27)
    assert reader.names == ["m1", "m2", "m3", "m4"]


def test_a_message_that_arrives_late_at_a_node_is_not_repeated() -> None:
    here, there, reader = make_hub(), make_hub(), Reader()
    reader.poll(here, 10)
    publish(here, "one", 11)
    assert reader.poll(here, 11)
    assert reader.poll(there, 11)
    publish(there, "one", 12)
    assert reader.poll(there, 13)
    assert reader.names == ["one"]


def test_nodes_with_another_order_of_messages() -> None:
    here, there, reader = make_hub(), make_hub(), Reader()
    reader.poll(here, 10)
    publish(here, "one", 11)
    publish(there, "two", 11)
    assert reader.poll(here, 11.5)
    publish(here, "two", 12)
    publish(there, "one", 12)
    assert reader.poll(there, 13)
    assert reader.poll(here, 14)
    assert reader.names == ["one", "two"]


def test_more_messages_than_a_token_can_name() -> None:
    here, there, reader = make_hub(), make_hub(), Reader()
    names = [str(n) for n in range(3 * MAX_RECENT)]
    reader.poll(here, 10)
    for name in names:
        publish(here, name, 11)
        publish(there, name, 11.1)
    assert reader.poll(here, 12)
    assert reader.poll(there, 12)
    publish(there, "last", 12)
    assert reader.poll(there, 13)
    assert reader.names == [*names, "last"]


def test_nodes_with_different_clocks() -> None:
    here, there, reader = make_hub(epoch=1e9), make_hub(epoch=1e9 + 10), Reader()
    reader.poll(here, 60)
    for n in range(20):
        publish(here, f"m{n}", 60 + n)
        publish(there, f"m{n}", 60 + n)
        assert reader.poll((here, there)[n % 2], 60 + n)
    assert reader.names == [f"m{n}" for n in range(20)]


def test_a_client_that_returns_too_late_is_not_recovered() -> None:
    hub, reader = make_hub(), Reader()
    reader.poll(hub, 1)
    publish(hub, "one", 2)
    hub.sweep(3 + MAX_AGE)
    hub.sweep(4 + MAX_AGE)
    assert not hub.instances, "even its name is forgotten"
    assert not reader.poll(hub, 5 + MAX_AGE)
    assert reader.poll(hub, 6 + MAX_AGE)


def test_a_client_that_returns_late_without_messages_is_recovered() -> None:
    hub, reader = make_hub(), Reader()
    publish(hub, "one", 1)
    reader.poll(hub, 2)
    hub.sweep(HOUR)
    assert reader.poll(hub, HOUR)


def test_a_node_started_meanwhile_cannot_recover_a_client() -> None:
    here, reader = make_hub(), Reader()
    reader.poll(here, 100)
    assert not reader.poll(make_hub(started=150), 151)
    reader.poll(here, 152)
    assert reader.poll(make_hub(started=150), 153)


def test_a_client_that_changes_channels_gets_the_new_ones_from_its_token_on() -> None:
    hub, reader = make_hub(), Reader("A")
    reader.poll(hub, 1)
    publish(hub, "before", 2, "B")
    reader.poll(hub, 3)
    reader.channels = ("A", "B")
    publish(hub, "one", 4, "A", "B")
    publish(hub, "two", 4, "B")
    assert reader.poll(hub, 5)
    assert reader.names == ["one", "two"]


def test_tokens_unique_ids_and_garbage_may_be_mixed() -> None:
    hub, reader = make_hub(), Reader()
    reader.poll(hub, 1)
    for name in ("one", "two", "three"):
        publish(hub, name, 2)
    listener, subscriber = join(hub, "A")
    results: list[bool] = []
    hub.replay_after(
        subscriber, ["gone", reader.last, "two"], 3, lambda recovery: results.append(recovery.recovered)
    )
    assert listener.ids == ["three"]
    assert results == [True]


def test_another_node_finds_the_very_first_message() -> None:
    here, there, reader = make_hub(), make_hub(), Reader()
    reader.poll(here, 10)
    publish(there, "one", 11)
    assert reader.poll(there, 12)
    assert reader.names == ["one"]


def test_many_foreign_tokens_cost_no_more_than_one() -> None:
    hub = make_hub()
    channels = [f"c{n}" for n in range(100)]
    for n in range(4096):
        publish(hub, f"m{n}", 50, *channels[n % 10 :: 10])
    full = ResumeToken("other", 1, 1e9 + 49, tuple(digest(f"x{n}") for n in range(16)))
    words = [f"~other{n}{full.encode().removeprefix('~other')}" for n in range(500)]
    _, subscriber = join(hub, *channels)
    started = time.process_time()
    for _ in range(5):
        hub.resume(subscriber, words, 51)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("count", [2, MAX_MERGED_CHANNELS + 1])
def test_the_newest_messages_of_few_channels_and_of_many(count: int) -> None:
    hub = make_hub()
    channels = [f"c{n}" for n in range(count)]
    for n in range(10):
        publish(hub, f"m{n}", n, channels[n % 2], channels[-1], "other")
        publish(hub, f"x{n}", n, "other")
    _, subscriber = join(hub, *channels)
    history = subscriber.instance.history
    entries = history.newest(subscriber.subscriptions, 2 * 8, 4)
    assert [entry.message.unique_id for entry in entries] == ["m7", "m6", "m5", "m4"]


@given(st.integers(0, 1 << 30))
@settings(max_examples=30, deadline=None)
def test_any_mixture_of_nodes_and_delays(seed: int) -> None:
    """While no delay exceeds the overlap, and no burst what a token can name."""
    chance = random.Random(seed)
    hubs = [make_hub(epoch=1e9 + chance.uniform(-2, 2)) for _ in range(3)]
    arrivals: list[tuple[float, int, str]] = []
    now = 1000.0
    for n in range(100):
        now += chance.expovariate(1 / 8)
        arrivals += [(now + chance.uniform(0, OVERLAP_SECONDS / 3), node, f"m{n}") for node in range(3)]
    reader, now = Reader(), 990.0
    for at, node, name in sorted(arrivals):
        while now < at:
            assert reader.poll(chance.choice(hubs), now)
            now += chance.expovariate(1)
        publish(hubs[node], name, at)
    for hub in hubs:
        assert reader.poll(hub, max(now, at + OVERLAP_SECONDS / 3))
    assert sorted(reader.names) == sorted({name for _, _, name in arrivals})
