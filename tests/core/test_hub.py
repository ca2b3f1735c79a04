"""Who gets what, and when (SPEC 1.3 to 1.5, 2.1, 2.2), without a socket or a clock."""

import gc
import random
from collections.abc import Iterator
from typing import Any

import pytest

from aphlict.core.budget import ACCOUNT_COST
from aphlict.core.fanout import SLICE
from aphlict.core.hub import FEW, Recovery
from aphlict.core.message import Message, parse
from aphlict.core.subscriptions import subscription_cost
from aphlict.errors import CommandError, HistoryEvicted, NameTooLong
from tests.support.hearing import OWN, Ear, Stage


@pytest.fixture
def stage() -> Stage:
    """A hub with the limits of the contract."""
    return Stage()


# Delivery


def test_a_message_goes_to_who_listens(stage: Stage) -> None:
    ann, _ = stage.join("a")
    bob, _ = stage.join("b")
    both, _ = stage.join("a", "b")
    assert stage.publish("1", ["a"]).matched == 2
    assert (ann.ids, bob.ids, both.ids) == (["1"], [], ["1"])


def test_who_listens_to_two_channels_of_a_message_gets_it_once(stage: Stage) -> None:
    both, _ = stage.join("a", "b")
    assert stage.publish("1", ["a", "b"]).matched == 1
    assert both.ids == ["1"]


def test_no_one_learns_who_else_was_told(stage: Stage) -> None:
    ann, _ = stage.join("a")
    both, _ = stage.join("b", "a")
    stage.publish("1", ["a", "b", "secret"], touched=["other"], text="hello")
    assert ann.heard == [{"uniqueID": "1", "subscribers": ["a"], "text": "hello"}]
    assert both.heard == [{"uniqueID": "1", "subscribers": ["a", "b"], "text": "hello"}]


def test_a_message_for_nobody(stage: Stage) -> None:
    assert stage.publish("1", []).matched == 0
    assert stage.publish("2", ["nobody"]).matched == 0


def test_instances_never_meet(stage: Stage) -> None:
    acme, subscriber = stage.join("a", instance="acme")
    stage.publish("1", ["a"], "other")
    assert acme.ids == []
    assert stage.replay_age(subscriber).messages == 0
    stage.publish("1", ["a"], "acme")
    assert acme.ids == ["1"]


def test_messages_arrive_in_the_order_in_which_they_were_accepted(stage: Stage) -> None:
    ann, _ = stage.join("a", "b")
    for number in range(100):
        stage.publish(str(number), ["a"] if number % 3 else ["b"])
    assert ann.ids == [str(number) for number in range(100)]


def test_after_unsubscribe_nothing_comes(stage: Stage) -> None:
    ann, subscriber = stage.join("a", "b")
    stage.hub.unsubscribe(subscriber, ["a", "never had"])
    stage.publish("1", ["a"])
    stage.publish("2", ["b"])
    assert ann.ids == ["2"]


def test_after_leave_nothing_comes(stage: Stage) -> None:
    ann, subscriber = stage.join("a")
    stage.hub.leave(subscriber)
    stage.publish("1")
    assert ann.ids == []
    assert stage.hub.connections == 0


# Once


def test_a_name_is_delivered_once(stage: Stage) -> None:
    ann, _ = stage.join("a")
    assert stage.publish("1").as_dict() == {"uniqueID": "1", "matched": 1}
    assert stage.publish("1").as_dict() == {"uniqueID": "1", "matched": 0, "duplicate": True}
    assert ann.ids == ["1"]
    assert stage.others.forwarded == ["1"]


def test_a_name_is_free_again_after_the_history_has_forgotten_it(stage: Stage) -> None:
    ann, _ = stage.join("a")
    stage.publish("1")
    stage.now += 60.5
    assert not stage.publish("1").duplicate
    assert ann.ids == ["1", "1"]


def test_a_message_that_this_node_has_touched_does_nothing(stage: Stage) -> None:
    ann, _ = stage.join("a")
    assert stage.publish("1", touched=["other", OWN]).duplicate
    assert ann.ids == []
    assert stage.others.forwarded == []
    assert stage.hub.status("default", stage.now)["history.size"] == 0


def test_a_message_goes_on_to_the_other_nodes(stage: Stage) -> None:
    stage.publish("1", [])
    stage.publish("2", ["a"], touched=["other"])
    assert stage.others.forwarded == ["1", "2"]


def test_touched_is_not_kept_once_a_message_has_gone_on(stage: Stage) -> None:
    stage.publish("1", touched=["other"])
    [entry] = stage.hub.archive.entries()
    assert entry.message.touched == ()
    assert stage.others.touched == [("other",)]


def test_what_a_new_hub_learns_goes_on_unless_the_others_may_have_forgotten_it(stage: Stage) -> None:
    for age, name in ((29, "young"), (31, "old")):
        [message], _ = parse(b'{"subscribers": ["a"], "uniqueID": "%b"}' % name.encode(), "default")
        assert stage.hub.restore(message, stage.now - age, stage.now)
        assert not stage.hub.restore(message, stage.now - age, stage.now)
        assert stage.publish(name).duplicate
    assert stage.others.forwarded == ["young"]


# Replay by age


def test_replay_sends_what_is_young_enough_oldest_first(stage: Stage) -> None:
    for second in range(10):
        stage.publish(str(second))
        stage.now += 1
    ann, subscriber = stage.join("a")
    assert stage.replay_age(subscriber, 3.5) == (3, True)
    assert ann.ids == ["7", "8", "9"]


def test_replay_is_of_the_channels_that_are_subscribed_now(stage: Stage) -> None:
    for number, channel in enumerate("aabbcc"):
        stage.publish(str(number), [channel])
    ann, subscriber = stage.join("a", "b")
    stage.hub.unsubscribe(subscriber, ["a"])
    stage.hub.subscribe(subscriber, ["c"])
    stage.replay_age(subscriber)
    assert ann.ids == ["2", "3", "4", "5"]


def test_replay_by_age_sends_again_what_was_sent(stage: Stage) -> None:
    ann, subscriber = stage.join("a")
    stage.publish("1")
    stage.replay_age(subscriber)
    assert ann.ids == ["1", "1"]


def test_a_replayed_message_tells_no_more_than_a_live_one(stage: Stage) -> None:
    stage.publish("1", ["a", "secret"], touched=["other"])
    ann, subscriber = stage.join("a")
    stage.replay_age(subscriber)
    assert ann.heard == [{"uniqueID": "1", "subscribers": ["a"]}]


def test_replay_of_nothing(stage: Stage) -> None:
    ann, subscriber = stage.join()
    stage.publish("1")
    assert stage.replay_age(subscriber) == (0, True)
    assert ann.ids == []


def test_an_older_message_that_was_restored_hides_no_newer_one(stage: Stage) -> None:
    stage.publish("new", ["a"])
    for name, channels in (("older", ["a", "b"]), ("other", ["c"])):
        fields = b'{"uniqueID":"%b"' % name.encode()
        message = Message("default", name, tuple(channels), (), fields)
        assert stage.hub.restore(message, stage.now - 30, stage.now)
    stage.now += 1
    for channels in (["a"], ["a", "b"], ["a", "b", "c", "d"]):
        ear, subscriber = stage.join(*channels)
        stage.replay_age(subscriber, 10)
        assert ear.ids == ["new"]
    stage.replay_age(subscriber, 40)
    assert ear.ids == ["new", "new", "older", "other"]


# Replay after a message


def test_replay_after_a_message_sends_what_came_later(stage: Stage) -> None:
    for number in range(5):
        stage.publish(str(number))
    ann, subscriber = stage.join("a")
    assert stage.replay_after(subscriber, "2") == (2, True)
    assert ann.ids == ["3", "4"]


def test_the_message_may_have_been_on_another_channel(stage: Stage) -> None:
    for number in range(4):
        stage.publish(str(number), ["a" if number % 2 else "b"])
    ann, subscriber = stage.join("a")
    stage.replay_after(subscriber, "0")
    assert ann.ids == ["1", "3"]


def test_a_message_that_is_forgotten_means_a_gap(stage: Stage) -> None:
    stage.publish("1")
    stage.now += 61
    stage.publish("2")
    stage.publish("3")
    ann, subscriber = stage.join("a")
    assert stage.replay_after(subscriber, "0") == (2, False)
    assert ann.ids == ["2", "3"]


class SlowEar(Ear):
    """A receiver that takes of a replay what the test takes of it."""

    def send_all(self, frames: Iterator[bytes], /) -> None:
        """Keep the frames for later."""
        self.frames = frames

    def take(self) -> None:
        """Take one more frame."""
        self.send(next(self.frames))


def test_a_replay_that_is_not_taken_keeps_no_messages(stage: Stage) -> None:
    _, subscriber = stage.join("a", ear=SlowEar())
    gc.collect()
    before = messages_alive()
    for name in "1234":
        stage.publish(name)
    stage.replay_age(subscriber)
    assert messages_alive() == before + 4
    stage.now += 61
    stage.hub.sweep(stage.now)
    gc.collect()
    assert messages_alive() == before


def test_a_replay_ends_at_what_is_forgotten(stage: Stage) -> None:
    """What comes after it would follow a gap that the reader was not told of."""
    slow = SlowEar()
    _, subscriber = stage.join("a", ear=slow)
    stage.publish("1")
    stage.now += 30
    for name in "234":
        stage.publish(name)
    stage.replay_age(subscriber)
    slow.take()
    stage.now += 31
    stage.hub.sweep(stage.now)
    slow.take()
    stage.now += 30
    stage.hub.sweep(stage.now)
    with pytest.raises(HistoryEvicted):
        slow.take()
    assert slow.ids == ["1", "2", "3", "4", "1", "2"]


def test_a_replay_leaves_out_what_was_unsubscribed_since(stage: Stage) -> None:
    slow = SlowEar()
    _, subscriber = stage.join("a", "b", ear=slow)
    for name in "12":
        for channels in (["a"], ["b"], ["a", "b"]):
            stage.publish(name + "".join(channels), channels)
    slow.heard.clear()
    stage.replay_age(subscriber)
    slow.take()
    stage.hub.unsubscribe(subscriber, ["a"])
    for _ in range(4):
        slow.take()
    assert slow.ids == ["1a", "1b", "1ab", "2b", "2ab"]
    assert slow.heard[-1]["subscribers"] == ["b"]
    stage.hub.leave(subscriber)
    assert list(slow.frames) == []


def test_what_is_forgotten_before_a_replay_begins_is_a_gap(stage: Stage) -> None:
    """Long fan-outs were before it."""
    crowd(stage, 2 * SLICE)
    ann, subscriber = stage.join("b")
    for name in ("b1", "b2"):
        stage.publish(name, ["b"])
        stage.now += 30
    ann.heard.clear()
    stage.publish("1")
    done: list[Recovery] = []
    stage.hub.replay_age(subscriber, 60.0, stage.now, done.append)
    stage.now += 1
    stage.hub.sweep(stage.now)
    stage.finish()
    assert (ann.ids, done) == (["b2"], [Recovery(1, recovered=False)])


def test_there_is_no_gap_right_after_what_was_forgotten_last(stage: Stage) -> None:
    stage.publish("1")
    stage.now += 61
    stage.publish("2")
    _, subscriber = stage.join("a")
    assert stage.replay_after(subscriber, "1") == (1, True)


def test_what_came_live_is_not_sent_again(stage: Stage) -> None:
    stage.publish("1")
    stage.publish("2")
    ann, subscriber = stage.join("a")
    stage.publish("3")
    assert stage.replay_after(subscriber, "1") == (1, True)
    assert ann.ids == ["3", "2"]


def test_of_several_names_the_oldest_is_where_it_starts_and_none_comes_again(stage: Stage) -> None:
    for number in range(6):
        stage.publish(str(number))
    ann, subscriber = stage.join("a")
    stage.replay_after(subscriber, "4", "2", "unknown")
    assert ann.ids == ["3", "5"]


# Long work


def crowd(stage: Stage, size: int) -> list[Ear]:
    """So many browsers on channel a."""
    return [stage.join("a")[0] for _ in range(size)]


def test_a_long_fan_out_is_done_in_slices(stage: Stage) -> None:
    ears = crowd(stage, 3 * SLICE)
    assert stage.publish("1").matched == 3 * SLICE
    assert stage.wakes == 1
    assert sum(len(ear.heard) for ear in ears) == 0
    assert stage.hub.work()
    assert 0 < sum(len(ear.heard) for ear in ears) <= SLICE
    stage.finish()
    assert all(ear.ids == ["1"] for ear in ears)


def test_order_is_kept_behind_a_long_fan_out(stage: Stage) -> None:
    ears = crowd(stage, 2 * SLICE)
    both, _ = stage.join("a", "b")
    for number in range(5):
        stage.publish(str(number), ["a"] if number % 2 else ["b"])
        stage.hub.work()
    stage.finish()
    assert both.ids == ["0", "1", "2", "3", "4"]
    assert all(ear.ids == ["1", "3"] for ear in ears)


def test_another_instance_does_not_wait_for_a_long_fan_out(stage: Stage) -> None:
    crowd(stage, 4 * SLICE)
    other, _ = stage.join("a", instance="other")
    stage.publish("long")
    stage.publish("short", ["a"], "other")
    assert other.ids == ["short"]


def test_instances_with_long_work_take_turns(stage: Stage) -> None:
    crowd(stage, 4 * SLICE)
    others = [stage.join("a", instance="other")[0] for _ in range(2 * SLICE)]
    stage.publish("1")
    stage.publish("2", ["a"], "other")
    for _ in range(4):
        stage.hub.work()
    assert any(other.ids for other in others)


def test_who_joins_during_a_long_fan_out_does_not_get_it(stage: Stage) -> None:
    crowd(stage, 2 * SLICE)
    stage.publish("1")
    late, _ = stage.join("a")
    stage.finish()
    assert late.ids == []


def test_a_replay_behind_a_long_fan_out_gives_each_message_once(stage: Stage) -> None:
    stage.publish("0")
    crowd(stage, 2 * SLICE)
    early, subscriber = stage.join("a")
    stage.publish("1")
    late, late_subscriber = stage.join("a")
    stage.publish("2")
    assert stage.replay_after(subscriber, "0") == (0, True)
    assert stage.replay_after(late_subscriber, "0") == (1, True)
    assert early.ids == ["1", "2"]
    assert sorted(late.ids) == ["1", "2"]


# Memory


def messages_alive() -> int:
    return sum(isinstance(each, Message) for each in gc.get_objects())


def test_what_is_forgotten_is_freed_at_once(stage: Stage) -> None:
    """Without the garbage collector, which may let minutes pass before it looks at what has become old."""
    ann, _ = stage.join("a")
    gc.collect()
    gc.disable()
    try:
        before = messages_alive()
        for number in range(100):
            stage.publish(str(number))
        assert messages_alive() == before + 100
        stage.now += 61
        stage.hub.sweep(stage.now)
        assert len(ann.heard) == 100
        assert messages_alive() == before
    finally:
        gc.enable()


# Limits


def test_a_connection_may_have_so_many_subscriptions() -> None:
    stage = Stage(subscriptions=3)
    ann, subscriber = stage.join("a", "b")
    with pytest.raises(CommandError):
        stage.hub.subscribe(subscriber, ["c", "d"])
    stage.publish("1", ["c"])
    assert ann.ids == [], "it adds all or none"
    stage.hub.subscribe(subscriber, ["a", "b", "c"])
    stage.publish("2", ["c"])
    assert ann.ids == ["2"]


@pytest.mark.parametrize("name", ["x" * 257, "ü" * 129])
def test_a_name_is_256_bytes_at_most(stage: Stage, name: str) -> None:
    ann, subscriber = stage.join()
    with pytest.raises(NameTooLong):
        stage.hub.subscribe(subscriber, ["a", name])
    with pytest.raises(NameTooLong):
        stage.hub.join(name, ann)
    stage.publish("1")
    assert ann.ids == [], "it adds all or none"


# The state of things


def test_status_counts(stage: Stage) -> None:
    _, subscriber = stage.join("a")
    stage.join("a")
    stage.hub.leave(subscriber)
    stage.publish("1")
    stage.publish("1")
    stage.now += 1.5
    stage.publish("2", ["b"])
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
    status = stage.hub.status("default", stage.now)
    assert {key: status[key] for key in expected} == expected


def test_status_of_an_instance_that_nobody_knows(stage: Stage) -> None:
    status = stage.hub.status("nobody", stage.now)
    assert (status["clients.active"], status["history.size"], status["history.age"]) == (0, 0, None)
    assert "nobody" not in stage.hub.instances


def test_instances_that_nobody_uses_are_forgotten(stage: Stage) -> None:
    for number in range(100):
        stage.publish("1", ["a"], f"instance{number}")
    _, subscriber = stage.join("a", instance="kept")
    stage.now += 61
    stage.hub.sweep(stage.now)
    assert list(stage.hub.instances) == ["kept"]
    stage.hub.leave(subscriber)
    stage.hub.sweep(stage.now)
    assert not stage.hub.instances


def test_what_subscriptions_take_is_counted(stage: Stage) -> None:
    chance = random.Random(1)
    names = [f"name{number}" for number in range(90)] + [f"nämé{number}" for number in range(10)]
    subscribers = [stage.join()[1] for _ in range(5)]
    memory = stage.hub.memory
    for _ in range(500):
        subscriber = chance.choice(subscribers)
        change = chance.choice((stage.hub.subscribe, stage.hub.unsubscribe))
        change(subscriber, chance.sample(names, chance.randrange(40)))
        costs = {each: subscription_cost(each.subscriptions) for each in subscribers}
        many = [each for each in subscribers if len(each.subscriptions) > FEW]
        assert memory.used == sum(costs.values()) + len(many) * ACCOUNT_COST
        assert [memory.held(each.receiver.holder) for each in many] == [costs[each] for each in many]
        assert len(memory.accounts) == len(many)
    for each in subscribers:
        stage.hub.leave(each)
    assert (memory.used, memory.accounts) == (0, {})
