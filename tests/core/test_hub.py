"""The hub: publishing, subscriptions and replays."""

import gc
import random
from collections.abc import Iterator
from typing import Any

import pytest

from aphlict.core.budget import ACCOUNT_BYTES
from aphlict.core.fanout import SLICE
from aphlict.core.history import MAX_AGE
from aphlict.core.hub import Recovery
from aphlict.core.message import Delivery, Message
from aphlict.core.subscriptions import UNATTRIBUTED_SUBSCRIPTIONS, subscription_bytes
from aphlict.errors import CommandError, HistoryEvicted, NameTooLong
from tests.support.hub import THIS_NODE, FakeSubscriber, HubHarness


@pytest.fixture
def harness() -> HubHarness:
    """A hub with the default limits."""
    return HubHarness()


# Delivery


def test_a_message_is_delivered_to_subscribers_only(harness: HubHarness) -> None:
    ann, _ = harness.join("a")
    bob, _ = harness.join("b")
    both, _ = harness.join("a", "b")
    assert harness.publish("1", ["a"]).matched == 2
    assert (ann.ids, bob.ids, both.ids) == (["1"], [], ["1"])


def test_a_subscriber_of_two_channels_of_a_message_receives_it_once(harness: HubHarness) -> None:
    both, _ = harness.join("a", "b")
    assert harness.publish("1", ["a", "b"]).matched == 1
    assert both.ids == ["1"]


def test_a_subscriber_does_not_see_other_channels(harness: HubHarness) -> None:
    ann, _ = harness.join("a")
    both, _ = harness.join("b", "a")
    harness.publish("1", ["a", "b", "secret"], touched=["other"], text="hello")
    assert ann.messages == [{"uniqueID": "1", "subscribers": ["a"], "text": "hello"}]
    assert both.messages == [{"uniqueID": "1", "subscribers": ["a", "b"], "text": "hello"}]


def test_a_message_without_subscribers(harness: HubHarness) -> None:
    assert harness.publish("1", []).matched == 0
    assert harness.publish("2", ["nobody"]).matched == 0


def test_instances_are_isolated(harness: HubHarness) -> None:
    acme, subscriber = harness.join("a", instance="acme")
    harness.publish("1", ["a"], "other")
    assert acme.ids == []
    assert harness.replay_age(subscriber).messages == 0
    harness.publish("1", ["a"], "acme")
    assert acme.ids == ["1"]


def test_messages_arrive_in_the_order_in_which_they_were_accepted(harness: HubHarness) -> None:
    ann, _ = harness.join("a", "b")
    for number in range(100):
        harness.publish(str(number), ["a"] if number % 3 else ["b"])
    assert ann.ids == [str(number) for number in range(100)]


def test_nothing_is_delivered_after_unsubscribe(harness: HubHarness) -> None:
    ann, subscriber = harness.join("a", "b")
    harness.hub.unsubscribe(subscriber, ["a", "never had"])
    harness.publish("1", ["a"])
    harness.publish("2", ["b"])
    assert ann.ids == ["2"]


def test_nothing_is_delivered_after_leave(harness: HubHarness) -> None:
    ann, subscriber = harness.join("a")
    harness.hub.leave(subscriber)
    harness.publish("1")
    assert ann.ids == []
    assert harness.hub.connections == 0


# Duplicates


def test_a_unique_id_is_delivered_once(harness: HubHarness) -> None:
    ann, _ = harness.join("a")
    assert harness.publish("1").as_dict() == {"uniqueID": "1", "matched": 1}
    assert harness.publish("1").as_dict() == {"uniqueID": "1", "matched": 0, "duplicate": True}
    assert ann.ids == ["1"]
    assert harness.forwarder.ids == ["1"]


def test_a_unique_id_can_be_reused_after_its_eviction(harness: HubHarness) -> None:
    ann, _ = harness.join("a")
    harness.publish("1")
    harness.now += 60.5
    assert not harness.publish("1").duplicate
    assert ann.ids == ["1", "1"]


def test_a_message_that_this_node_has_touched_is_ignored(harness: HubHarness) -> None:
    ann, _ = harness.join("a")
    assert harness.publish("1", touched=["other", THIS_NODE]).duplicate
    assert ann.ids == []
    assert harness.forwarder.ids == []
    assert harness.hub.status("default", harness.now)["history.size"] == 0


def test_a_message_is_forwarded(harness: HubHarness) -> None:
    harness.publish("1", [])
    harness.publish("2", ["a"], touched=["other"])
    assert harness.forwarder.ids == ["1", "2"]


def test_touched_is_cleared_after_forwarding(harness: HubHarness) -> None:
    harness.publish("1", touched=["other"])
    [entry] = harness.hub.history.entries()
    assert entry.message.touched == ()
    assert harness.forwarder.touched == [("other",)]


def test_a_restored_message_is_delivered_once_and_not_forwarded(harness: HubHarness) -> None:
    ann, _ = harness.join("a")
    for number, name in ((7, "one"), (8, "two")):
        message = Message(
            "default", name, ("a",), (), b'{"uniqueID":"%b"' % name.encode(), "otherone", number
        )
        assert harness.hub.restore(message, harness.now - 29, harness.now)
        assert not harness.hub.restore(message, harness.now - 29, harness.now)
        assert harness.publish(name).duplicate
    assert ann.ids == ["one", "two"]
    assert harness.forwarder.ids == []


def test_a_message_that_the_history_would_evict_is_not_restored(harness: HubHarness) -> None:
    message = Message("default", "old", ("a",), (), b'{"uniqueID":"old"', "otherone", 7)
    assert not harness.hub.restore(message, harness.now - MAX_AGE, harness.now)


# Replay by age


def test_replay_by_age_delivers_the_oldest_first(harness: HubHarness) -> None:
    for second in range(10):
        harness.publish(str(second))
        harness.now += 1
    ann, subscriber = harness.join("a")
    assert harness.replay_age(subscriber, 3.5) == (3, True)
    assert ann.ids == ["7", "8", "9"]


def test_replay_covers_the_channels_subscribed_now(harness: HubHarness) -> None:
    for number, channel in enumerate("aabbcc"):
        harness.publish(str(number), [channel])
    ann, subscriber = harness.join("a", "b")
    harness.hub.unsubscribe(subscriber, ["a"])
    harness.hub.subscribe(subscriber, ["c"])
    harness.replay_age(subscriber)
    assert ann.ids == ["2", "3", "4", "5"]


def test_replay_by_age_repeats_delivered_messages(harness: HubHarness) -> None:
    ann, subscriber = harness.join("a")
    harness.publish("1")
    harness.replay_age(subscriber)
    assert ann.ids == ["1", "1"]


def test_a_replayed_message_shows_no_other_channels(harness: HubHarness) -> None:
    harness.publish("1", ["a", "secret"], touched=["other"])
    ann, subscriber = harness.join("a")
    harness.replay_age(subscriber)
    assert ann.messages == [{"uniqueID": "1", "subscribers": ["a"]}]


def test_replay_of_nothing(harness: HubHarness) -> None:
    ann, subscriber = harness.join()
    harness.publish("1")
    assert harness.replay_age(subscriber) == (0, True)
    assert ann.ids == []


def test_a_restored_older_message_does_not_hide_newer_ones(harness: HubHarness) -> None:
    harness.publish("new", ["a"])
    for number, name, channels in ((1, "older", ["a", "b"]), (2, "other", ["c"])):
        fields = b'{"uniqueID":"%b"' % name.encode()
        message = Message("default", name, tuple(channels), (), fields, "otherone", number)
        assert harness.hub.restore(message, harness.now - 30, harness.now)
    harness.now += 1
    for channels in (["a"], ["a", "b"], ["a", "b", "c", "d"]):
        each, subscriber = harness.join(*channels)
        harness.replay_age(subscriber, 10)
        assert each.ids == ["new"]
    harness.replay_age(subscriber, 40)
    assert each.ids == ["new", "new", "older", "other"]


# Replay after a message


def test_replay_after_a_message_delivers_later_ones(harness: HubHarness) -> None:
    for number in range(5):
        harness.publish(str(number))
    ann, subscriber = harness.join("a")
    assert harness.replay_after(subscriber, "2") == (2, True)
    assert ann.ids == ["3", "4"]


def test_the_message_may_have_been_on_another_channel(harness: HubHarness) -> None:
    for number in range(4):
        harness.publish(str(number), ["a" if number % 2 else "b"])
    ann, subscriber = harness.join("a")
    harness.replay_after(subscriber, "0")
    assert ann.ids == ["1", "3"]


def test_an_evicted_message_is_a_gap(harness: HubHarness) -> None:
    harness.publish("1")
    harness.now += 61
    harness.publish("2")
    harness.publish("3")
    ann, subscriber = harness.join("a")
    assert harness.replay_after(subscriber, "0") == (2, False)
    assert ann.ids == ["2", "3"]


class SlowSubscriber(FakeSubscriber):
    """A receiver that pulls a replay only when the test does."""

    def deliver_all(self, deliveries: Iterator[Delivery], /) -> None:
        """Keep the replay for later."""
        self.replay = deliveries

    def take(self) -> None:
        """Pull one more message."""
        self.deliver(next(self.replay))


def test_a_replay_that_is_not_read_keeps_no_messages(harness: HubHarness) -> None:
    _, subscriber = harness.join("a", fake=SlowSubscriber())
    gc.collect()
    before = messages_alive()
    for name in "1234":
        harness.publish(name)
    harness.replay_age(subscriber)
    assert messages_alive() == before + 4
    harness.now += 61
    harness.hub.sweep(harness.now)
    gc.collect()
    assert messages_alive() == before


def test_a_replay_ends_at_an_evicted_message(harness: HubHarness) -> None:
    """Later messages would follow a gap that was not reported."""
    slow = SlowSubscriber()
    _, subscriber = harness.join("a", fake=slow)
    harness.publish("1")
    harness.now += 30
    for name in "234":
        harness.publish(name)
    harness.replay_age(subscriber)
    slow.take()
    harness.now += 31
    harness.hub.sweep(harness.now)
    slow.take()
    harness.now += 30
    harness.hub.sweep(harness.now)
    with pytest.raises(HistoryEvicted):
        slow.take()
    assert slow.ids == ["1", "2", "3", "4", "1", "2"]


def test_a_replay_omits_channels_unsubscribed_since(harness: HubHarness) -> None:
    slow = SlowSubscriber()
    _, subscriber = harness.join("a", "b", fake=slow)
    for name in "12":
        for channels in (["a"], ["b"], ["a", "b"]):
            harness.publish(name + "".join(channels), channels)
    slow.deliveries.clear()
    harness.replay_age(subscriber)
    slow.take()
    harness.hub.unsubscribe(subscriber, ["a"])
    for _ in range(4):
        slow.take()
    assert slow.ids == ["1a", "1b", "1ab", "2b", "2ab"]
    assert slow.messages[-1]["subscribers"] == ["b"]
    harness.hub.leave(subscriber)
    assert list(slow.replay) == []


def test_eviction_before_a_queued_replay_starts_is_a_gap(harness: HubHarness) -> None:
    """It was queued behind long fan-outs."""
    crowd(harness, 2 * SLICE)
    ann, subscriber = harness.join("b")
    for name in ("b1", "b2"):
        harness.publish(name, ["b"])
        harness.now += 30
    ann.deliveries.clear()
    harness.publish("1")
    done: list[Recovery] = []
    harness.hub.replay_age(subscriber, 60.0, harness.now, done.append)
    harness.now += 1
    harness.hub.sweep(harness.now)
    harness.finish()
    assert (ann.ids, done) == (["b2"], [Recovery(1, recovered=False)])


def test_there_is_no_gap_after_the_last_evicted_message(harness: HubHarness) -> None:
    harness.publish("1")
    harness.now += 61
    harness.publish("2")
    _, subscriber = harness.join("a")
    assert harness.replay_after(subscriber, "1") == (1, True)


def test_a_replay_omits_messages_delivered_live(harness: HubHarness) -> None:
    harness.publish("1")
    harness.publish("2")
    ann, subscriber = harness.join("a")
    harness.publish("3")
    assert harness.replay_after(subscriber, "1") == (1, True)
    assert ann.ids == ["3", "2"]


def test_of_several_unique_ids_the_oldest_counts_and_none_is_repeated(harness: HubHarness) -> None:
    for number in range(6):
        harness.publish(str(number))
    ann, subscriber = harness.join("a")
    harness.replay_after(subscriber, "4", "2", "unknown")
    assert ann.ids == ["3", "5"]


# Long fan-outs


def crowd(harness: HubHarness, size: int) -> list[FakeSubscriber]:
    """Subscribe this many receivers to channel a."""
    return [harness.join("a")[0] for _ in range(size)]


def test_a_long_fan_out_is_done_in_slices(harness: HubHarness) -> None:
    subscribers = crowd(harness, 3 * SLICE)
    assert harness.publish("1").matched == 3 * SLICE
    assert harness.wakes == 1
    assert sum(len(each.deliveries) for each in subscribers) == 0
    assert harness.hub.run_slice()
    assert 0 < sum(len(each.deliveries) for each in subscribers) <= SLICE
    harness.finish()
    assert all(each.ids == ["1"] for each in subscribers)


def test_order_is_kept_behind_a_long_fan_out(harness: HubHarness) -> None:
    subscribers = crowd(harness, 2 * SLICE)
    both, _ = harness.join("a", "b")
    for number in range(5):
        harness.publish(str(number), ["a"] if number % 2 else ["b"])
        harness.hub.run_slice()
    harness.finish()
    assert both.ids == ["0", "1", "2", "3", "4"]
    assert all(each.ids == ["1", "3"] for each in subscribers)


def test_a_long_fan_out_does_not_delay_another_instance(harness: HubHarness) -> None:
    crowd(harness, 4 * SLICE)
    other, _ = harness.join("a", instance="other")
    harness.publish("long")
    harness.publish("short", ["a"], "other")
    assert other.ids == ["short"]


def test_instances_with_queues_take_turns(harness: HubHarness) -> None:
    crowd(harness, 4 * SLICE)
    others = [harness.join("a", instance="other")[0] for _ in range(2 * SLICE)]
    harness.publish("1")
    harness.publish("2", ["a"], "other")
    for _ in range(4):
        harness.hub.run_slice()
    assert any(other.ids for other in others)


def test_a_subscriber_that_joins_during_a_fan_out_is_not_included(harness: HubHarness) -> None:
    crowd(harness, 2 * SLICE)
    harness.publish("1")
    late, _ = harness.join("a")
    harness.finish()
    assert late.ids == []


def test_a_replay_queued_behind_a_fan_out_delivers_each_message_once(harness: HubHarness) -> None:
    harness.publish("0")
    crowd(harness, 2 * SLICE)
    early, subscriber = harness.join("a")
    harness.publish("1")
    late, late_subscriber = harness.join("a")
    harness.publish("2")
    assert harness.replay_after(subscriber, "0") == (0, True)
    assert harness.replay_after(late_subscriber, "0") == (1, True)
    assert early.ids == ["1", "2"]
    assert sorted(late.ids) == ["1", "2"]


# Memory


def messages_alive() -> int:
    return sum(isinstance(each, Message) for each in gc.get_objects())


def test_an_evicted_message_is_freed_immediately(harness: HubHarness) -> None:
    """Reference counts free it; the garbage collector may run minutes later."""
    ann, _ = harness.join("a")
    gc.collect()
    gc.disable()
    try:
        before = messages_alive()
        for number in range(100):
            harness.publish(str(number))
        assert messages_alive() == before + 100
        harness.now += 61
        harness.hub.sweep(harness.now)
        assert len(ann.deliveries) == 100
        assert messages_alive() == before
    finally:
        gc.enable()


# Limits


def test_the_subscriptions_of_a_connection_are_limited() -> None:
    harness = HubHarness(subscriptions=3)
    ann, subscriber = harness.join("a", "b")
    with pytest.raises(CommandError):
        harness.hub.subscribe(subscriber, ["c", "d"])
    harness.publish("1", ["c"])
    assert ann.ids == [], "it adds all or none"
    harness.hub.subscribe(subscriber, ["a", "b", "c"])
    harness.publish("2", ["c"])
    assert ann.ids == ["2"]


@pytest.mark.parametrize("name", ["x" * 257, "ü" * 129])
def test_a_channel_name_has_at_most_256_bytes(harness: HubHarness, name: str) -> None:
    ann, subscriber = harness.join()
    with pytest.raises(NameTooLong):
        harness.hub.subscribe(subscriber, ["a", name])
    with pytest.raises(NameTooLong):
        harness.hub.join(name, ann)
    harness.publish("1")
    assert ann.ids == [], "it adds all or none"


# Status


def test_status_counts(harness: HubHarness) -> None:
    _, subscriber = harness.join("a")
    harness.join("a")
    harness.hub.leave(subscriber)
    harness.publish("1")
    harness.publish("1")
    harness.now += 1.5
    harness.publish("2", ["b"])
    expected: dict[str, Any] = {
        "instance": "default",
        "clients.active": 1,
        "clients.total": 2,
        "messages.in": 3,
        "messages.out": 1,
        "history.size": 2,
        "history.age": 1500,
        "version": 7,
    }
    status = harness.hub.status("default", harness.now)
    assert {key: status[key] for key in expected} == expected


def test_status_of_an_unknown_instance(harness: HubHarness) -> None:
    status = harness.hub.status("nobody", harness.now)
    assert (status["clients.active"], status["history.size"], status["history.age"]) == (0, 0, None)
    assert "nobody" not in harness.hub.instances


def test_unused_instances_are_removed(harness: HubHarness) -> None:
    for number in range(100):
        harness.publish("1", ["a"], f"instance{number}")
    _, subscriber = harness.join("a", instance="kept")
    harness.now += 61
    harness.hub.sweep(harness.now)
    assert list(harness.hub.instances) == ["kept"]
    harness.hub.leave(subscriber)
    harness.hub.sweep(harness.now)
    assert not harness.hub.instances


def test_the_memory_of_subscriptions_is_counted(harness: HubHarness) -> None:
    chance = random.Random(1)
    names = [f"name{number}" for number in range(90)] + [f"nämé{number}" for number in range(10)]
    subscribers = [harness.join()[1] for _ in range(5)]
    memory = harness.hub.subscription_memory
    for _ in range(500):
        subscriber = chance.choice(subscribers)
        change = chance.choice((harness.hub.subscribe, harness.hub.unsubscribe))
        change(subscriber, chance.sample(names, chance.randrange(40)))
        costs = {each: subscription_bytes(each.subscriptions) for each in subscribers}
        many = [each for each in subscribers if len(each.subscriptions) > UNATTRIBUTED_SUBSCRIPTIONS]
        assert memory.used == sum(costs.values()) + len(many) * ACCOUNT_BYTES
        assert [memory.held(each.receiver.holder) for each in many] == [costs[each] for each in many]
        assert len(memory.accounts) == len(many)
    for each in subscribers:
        harness.hub.leave(each)
    assert (memory.used, memory.accounts) == (0, {})
