"""The index of subscriptions."""

import tracemalloc

import pytest

from aphlict.core.subscriptions import Group, Receiver, SubscriptionIndex, group_receivers, subscription_bytes
from tests.support.hub import FakeSubscriber

ANN, BOB, CID = FakeSubscriber("ann"), FakeSubscriber("bob"), FakeSubscriber("cid")


def listening(**names: list[FakeSubscriber]) -> SubscriptionIndex:
    """An index with these subscribers."""
    channels = SubscriptionIndex()
    for name, subscribers in names.items():
        for subscriber in subscribers:
            channels.add(name, subscriber)
    return channels


def listeners(channels: SubscriptionIndex, name: str) -> tuple[Receiver, ...]:
    """The subscribers of one channel."""
    found = channels.match([name])
    return found[0].receivers if found else ()


def match(channels: SubscriptionIndex, *names: str) -> set[tuple[str, str]]:
    """The receivers of a message on these channels, and their channels: `("ann", "a,b")`."""
    groups = [each for each in group_receivers(channels.match(names)) if isinstance(each, Group)]
    found = [
        (getattr(receiver, "name", ""), ",".join(group.channels))
        for group in groups
        for receiver in group.receivers
    ]
    assert len(found) == len({name for name, _ in found}), "somebody would hear it twice"
    assert len(groups) == len({group.channels for group in groups}), "two groups are one"
    return set(found)


def test_no_subscribers() -> None:
    channels = SubscriptionIndex()
    assert listeners(channels, "a") == ()
    assert channels.match(["a", "b"]) == []
    assert len(channels) == 0


def test_one_subscriber() -> None:
    channels = listening(a=[ANN])
    assert listeners(channels, "a") == (ANN,)
    assert match(channels, "a") == {("ann", "a")}
    assert match(channels, "b") == set()


def test_several_subscribers() -> None:
    channels = listening(a=[ANN, BOB, CID])
    assert set(listeners(channels, "a")) == {ANN, BOB, CID}
    assert match(channels, "a") == {("ann", "a"), ("bob", "a"), ("cid", "a")}


def test_a_receiver_of_several_channels_is_in_one_group() -> None:
    channels = listening(a=[ANN, BOB], b=[BOB, CID], c=[BOB])
    assert match(channels, "a", "b", "c") == {("ann", "a"), ("bob", "a,b,c"), ("cid", "b")}


def test_channels_are_in_the_order_of_the_message() -> None:
    channels = listening(a=[ANN], b=[ANN])
    assert match(channels, "b", "a") == {("ann", "b,a")}


def test_adding_twice_is_adding_once() -> None:
    channels = listening(a=[ANN, ANN], b=[ANN, BOB, ANN])
    assert listeners(channels, "a") == (ANN,)
    channels.discard("a", ANN)
    assert listeners(channels, "a") == ()
    channels.discard("b", ANN)
    assert listeners(channels, "b") == (BOB,)


def test_discarded_receivers_are_not_matched() -> None:
    channels = listening(a=[ANN, BOB, CID])
    for subscriber, left in ((BOB, {ANN, CID}), (ANN, {CID}), (CID, set())):
        channels.discard("a", subscriber)
        assert set(listeners(channels, "a")) == left
    assert len(channels) == 0


def test_discarding_a_stranger_changes_nothing() -> None:
    channels = listening(a=[ANN], b=[ANN, BOB])
    channels.discard("a", BOB)
    channels.discard("b", CID)
    channels.discard("c", ANN)
    assert listeners(channels, "a") == (ANN,)
    assert set(listeners(channels, "b")) == {ANN, BOB}


def test_a_snapshot_does_not_change() -> None:
    """A fan-out in slices iterates over it while receivers are added and discarded."""
    channels = listening(a=[ANN, BOB])
    before = listeners(channels, "a")
    channels.add("a", CID)
    channels.discard("a", ANN)
    assert set(before) == {ANN, BOB}
    assert set(listeners(channels, "a")) == {BOB, CID}


def test_channels_without_subscribers_are_removed() -> None:
    channels = listening(**{f"channel{number}": [ANN, BOB] for number in range(100)})
    assert len(channels) == 100
    for number in range(100):
        channels.discard(f"channel{number}", ANN)
        channels.discard(f"channel{number}", BOB)
    assert len(channels) == 0


@pytest.mark.parametrize("listeners", [1, 2, 3, 5, 21])
@pytest.mark.parametrize(
    "name", ["{}", "PHID-TASK-{:020}", "{}" + "x" * 245, "{}ä", "{}" + "x" * 245 + "\U0001f514"]
)
def test_a_subscription_takes_no_more_memory_than_is_counted(name: str, listeners: int) -> None:
    """Each subscriber has its own copies of the names, as parsed commands do."""
    channels, kept = SubscriptionIndex(), []
    tracemalloc.start()
    try:
        for _ in range(listeners):
            names = [name.format(number) for number in range(500)]
            subscriber, held = FakeSubscriber(), dict.fromkeys(names, 1)
            for each in names:
                each.encode()
                channels.add(each, subscriber)
            kept.append((subscriber, held))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken <= listeners * subscription_bytes(held)
    assert taken * 4 >= listeners * subscription_bytes(held)
