"""The index of subscriptions."""

import tracemalloc

import pytest

from aphlict.core.subscriptions import Group, Receiver, SubscriptionIndex, group_receivers, subscription_bytes
from tests.support.hub import FakeSubscriber

ANN, BOB, CID = FakeSubscriber("ann"), FakeSubscriber("bob"), FakeSubscriber("cid")


def make_index(**names: list[FakeSubscriber]) -> SubscriptionIndex:
    """An index with these subscribers."""
    index = SubscriptionIndex()
    for name, subscribers in names.items():
        for subscriber in subscribers:
            index.add(name, subscriber)
    return index


def listeners(index: SubscriptionIndex, name: str) -> tuple[Receiver, ...]:
    """The subscribers of one channel."""
    found = index.match([name])
    return found[0].receivers if found else ()


def receivers(index: SubscriptionIndex, *names: str) -> set[tuple[str, str]]:
    """The receivers of a message on these channels, and their channels: `("ann", "a,b")`."""
    groups = [each for each in group_receivers(index.match(names)) if isinstance(each, Group)]
    found = [
        (getattr(receiver, "name", ""), ",".join(group.channels))
        for group in groups
        for receiver in group.receivers
    ]
    assert len(found) == len({name for name, _ in found}), "a receiver is in two groups"
    assert len(groups) == len({group.channels for group in groups}), "two groups have the same channels"
    return set(found)


def test_no_subscribers() -> None:
    index = SubscriptionIndex()
    assert listeners(index, "a") == ()
    assert index.match(["a", "b"]) == []
    assert len(index) == 0


def test_one_subscriber() -> None:
    index = make_index(a=[ANN])
    assert listeners(index, "a") == (ANN,)
    assert receivers(index, "a") == {("ann", "a")}
    assert receivers(index, "b") == set()


def test_several_subscribers() -> None:
    index = make_index(a=[ANN, BOB, CID])
    assert set(listeners(index, "a")) == {ANN, BOB, CID}
    assert receivers(index, "a") == {("ann", "a"), ("bob", "a"), ("cid", "a")}


def test_a_receiver_of_several_channels_is_in_one_group() -> None:
    index = make_index(a=[ANN, BOB], b=[BOB, CID], c=[BOB])
    assert receivers(index, "a", "b", "c") == {("ann", "a"), ("bob", "a,b,c"), ("cid", "b")}


def test_channels_are_in_the_order_of_the_message() -> None:
    index = make_index(a=[ANN], b=[ANN])
    assert receivers(index, "b", "a") == {("ann", "b,a")}


def test_adding_twice_is_adding_once() -> None:
    index = make_index(a=[ANN, ANN], b=[ANN, BOB, ANN])
    assert listeners(index, "a") == (ANN,)
    index.discard("a", ANN)
    assert listeners(index, "a") == ()
    index.discard("b", ANN)
    assert listeners(index, "b") == (BOB,)


def test_discarded_receivers_are_not_matched() -> None:
    index = make_index(a=[ANN, BOB, CID])
    for subscriber, left in ((BOB, {ANN, CID}), (ANN, {CID}), (CID, set())):
        index.discard("a", subscriber)
        assert set(listeners(index, "a")) == left
    assert len(index) == 0


def test_discarding_another_receiver_changes_nothing() -> None:
    index = make_index(a=[ANN], b=[ANN, BOB])
    index.discard("a", BOB)
    index.discard("b", CID)
    index.discard("c", ANN)
    assert listeners(index, "a") == (ANN,)
    assert set(listeners(index, "b")) == {ANN, BOB}


def test_a_snapshot_does_not_change() -> None:
    """A fan-out in slices iterates over it while receivers are added and discarded."""
    index = make_index(a=[ANN, BOB])
    before = listeners(index, "a")
    index.add("a", CID)
    index.discard("a", ANN)
    assert set(before) == {ANN, BOB}
    assert set(listeners(index, "a")) == {BOB, CID}


def test_channels_without_subscribers_are_removed() -> None:
    index = make_index(**{f"channel{number}": [ANN, BOB] for number in range(100)})
    assert len(index) == 100
    for number in range(100):
        index.discard(f"channel{number}", ANN)
        index.discard(f"channel{number}", BOB)
    assert len(index) == 0


@pytest.mark.parametrize("listeners", [1, 2, 3, 5, 21])
@pytest.mark.parametrize(
    "name", ["{}", "PHID-TASK-{:020}", "{}" + "x" * 245, "{}ä", "{}" + "x" * 245 + "\U0001f514"]
)
def test_a_subscription_takes_no_more_memory_than_is_counted(name: str, listeners: int) -> None:
    """Each subscriber has its own copies of the names, as parsed commands do."""
    index, kept = SubscriptionIndex(), []
    tracemalloc.start()
    try:
        for _ in range(listeners):
            names = [name.format(number) for number in range(500)]
            subscriber, held = FakeSubscriber(), dict.fromkeys(names, 1)
            for each in names:
                each.encode()
                index.add(each, subscriber)
            kept.append((subscriber, held))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken <= listeners * subscription_bytes(held)
    assert taken * 4 >= listeners * subscription_bytes(held)
