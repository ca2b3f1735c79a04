"""The history: its bounds, and searches in it."""

import itertools
from collections.abc import Collection

import pytest

from aphlict.core.history import MAX_EVICTED_ENTRIES, Entry, Evicted, HistoryStore, InstanceHistory
from aphlict.core.message import Message
from tests.support.memory import kept

ORIGIN = "ownorig1"
numbers = itertools.count(1)


def message(name: str, *channels: str, size: int = 0, origin: str = ORIGIN, number: int = 0) -> Message:
    """A message of about this size."""
    return Message("default", name, channels or ("a",), (), b"x" * size, origin, number or next(numbers))


COST = message("x").memory_size


def ids(entries: Collection[Entry]) -> list[str]:
    """The uniqueIDs of the messages."""
    return [entry.message.unique_id for entry in entries]


def filled(archive: HistoryStore, *names: str, at: float = 0.0) -> InstanceHistory:
    """A history with these messages, all of them on channel a."""
    history = InstanceHistory()
    for name in names:
        archive.append(history, message(name), at)
    return history


@pytest.fixture
def archive() -> HistoryStore:
    """A store with the default bounds."""
    return HistoryStore(1 << 26)


def test_messages_are_kept_in_order(archive: HistoryStore) -> None:
    history = filled(archive, "1", "2", "3")
    assert ids(history.entries) == ["1", "2", "3"]
    assert len(history) == 3
    assert [entry.sequence for entry in history.entries] == [1, 2, 3]


def test_a_message_is_found_by_its_unique_id(archive: HistoryStore) -> None:
    history = filled(archive, "1")
    assert "1" in history
    assert "2" not in history


def test_4096_messages_are_kept_of_an_instance(archive: HistoryStore) -> None:
    history = filled(archive, *map(str, range(4097)))
    assert len(history) == 4096
    assert "0" not in history
    assert "1" in history


def test_another_instance_has_its_own_4096(archive: HistoryStore) -> None:
    quiet = filled(archive, "quiet")
    filled(archive, *map(str, range(5000)))
    assert "quiet" in quiet


def test_messages_are_kept_for_60_seconds(archive: HistoryStore) -> None:
    history = filled(archive, "1", at=100)
    archive.expire(160)
    assert "1" in history
    archive.expire(160.001)
    assert "1" not in history
    assert len(history) == 0


def test_the_oldest_messages_of_all_instances_are_evicted_first() -> None:
    archive = HistoryStore(max_memory=5 * COST)
    first, second = InstanceHistory(), InstanceHistory()
    for number in range(3):
        archive.append(first, message(f"first{number}"), 0)
    for number in range(4):
        archive.append(second, message(f"second{number}"), 0)
    assert ids(first.entries) == ["first2"]
    assert len(second) == 4


def test_the_bound_in_bytes_is_enforced() -> None:
    archive = HistoryStore(max_memory=100 * COST)
    history = InstanceHistory()
    for number in range(1000):
        archive.append(history, message(str(number), size=number), 0)
        assert archive.memory_size <= archive.max_memory
    assert archive.memory_size == sum(entry.message.memory_size for entry in history.entries)


def test_a_message_larger_than_the_bound_is_not_kept() -> None:
    archive = HistoryStore(max_memory=10 * COST)
    history = filled(archive, "1", "2")
    archive.append(history, message("large", size=100 * COST), 0)
    assert len(history) == 0
    assert archive.memory_size == 0


def test_a_smaller_bound_applies_from_the_next_expiry(archive: HistoryStore) -> None:
    history = filled(archive, *map(str, range(10)))
    archive.max_memory = 3 * COST
    archive.expire(0)
    assert ids(history.entries) == ["7", "8", "9"]


def test_the_store_releases_evicted_entries() -> None:
    archive = HistoryStore(1 << 26, max_messages=2)
    quiet = filled(archive, "quiet")
    filled(archive, *map(str, range(10 * MAX_EVICTED_ENTRIES)))
    assert "quiet" in quiet
    assert len(kept(archive, Entry)) < 3 * MAX_EVICTED_ENTRIES
    archive.expire(1000)
    assert archive.memory_size == 0
    assert not kept(archive, Entry)


@pytest.mark.parametrize("others", [0, 1, 3])
def test_an_entry_is_found_by_its_sequence(archive: HistoryStore, others: int) -> None:
    history, other = InstanceHistory(), InstanceHistory()
    for number in range(20):
        archive.append(history, message(str(number)), number)
        for place in range(others):
            archive.append(other, message(f"{number} {place}"), number)
    for _ in range(20):
        kept = {entry.sequence: entry for entry in history.entries}
        assert {number: history.get_by_sequence(number) for number in range(90)} == {
            number: kept.get(number) for number in range(90)
        }
        history.evict_oldest()
    assert history.get_by_sequence(1) is None


def test_nothing_of_an_evicted_message_is_kept(archive: HistoryStore) -> None:
    history = InstanceHistory()
    for number in range(100):
        archive.append(history, message(str(number), f"channel{number}", "all"), 0)
    archive.expire(1000)
    assert archive.memory_size == 0
    assert history.select(["all", "channel5"], lambda _: True) == []
    assert not [each for each in kept(history, str) if each.startswith("channel")]
    assert not kept(history, Entry)


# Searching


def test_entries_are_found_by_channel_in_order_and_once(archive: HistoryStore) -> None:
    history = InstanceHistory()
    for name, channels in (("1", "a"), ("2", "b"), ("3", "ab"), ("4", "c"), ("5", "ba")):
        archive.append(history, message(name, *channels), 0)
    assert ids(history.select(["a"], lambda _: True)) == ["1", "3", "5"]
    assert ids(history.select(["b", "a"], lambda _: True)) == ["1", "2", "3", "5"]
    assert ids(history.select(["a", "missing"], lambda _: True)) == ["1", "3", "5"]
    assert history.select(["missing"], lambda _: True) == []
    assert history.select([], lambda _: True) == []


def test_a_search_ends_at_the_first_unwanted_entry(archive: HistoryStore) -> None:
    history = InstanceHistory()
    for second in range(5):
        archive.append(history, message(str(second), "a", "b"), second)
    assert ids(history.select(["a"], lambda entry: entry.at >= 3)) == ["3", "4"]
    assert ids(history.select(["a", "b"], lambda entry: entry.sequence > 4)) == ["4"]


def test_a_search_examines_only_what_it_finds(archive: HistoryStore) -> None:
    """The cost depends on the result, not on the size of the history."""
    history = filled(archive, *map(str, range(4000)))
    archive.append(history, message("rare", "rare"), 1)
    looked_at = []

    def wanted(entry: Entry) -> bool:
        looked_at.append(entry)
        return entry.at >= 1

    assert ids(history.select(["rare", "a"], wanted)) == ["rare"]
    assert len(looked_at) <= 3


def test_the_last_evicted_message_of_each_origin_is_known() -> None:
    archive, history = HistoryStore(1 << 26, max_messages=1), InstanceHistory()
    for at, (origin, number) in enumerate([("a", 5), ("b", 7), ("a", 6), ("b", 8)]):
        archive.append(history, message(f"{origin}{number}", origin=origin, number=number), at)
    assert history.evicted == {"a": Evicted(6, 2, "a6"), "b": Evicted(7, 1, "b7")}


def test_all_numbers_of_a_message_are_evicted_with_it() -> None:
    archive, history = HistoryStore(1 << 26, max_messages=1), InstanceHistory()
    archive.append(history, message("one", origin="a", number=5), 1).copies = (("b", 7),)
    archive.append(history, message("two", origin="a", number=6), 2)
    assert history.evicted == {"a": Evicted(5, 1, "one"), "b": Evicted(7, 1, "one")}


def test_an_older_message_does_not_take_the_place_of_an_evicted_one() -> None:
    history = InstanceHistory({"a": Evicted(6, 2, "a6")})
    history.mark_evicted("a", Evicted(5, 3, "a5"))
    assert history.evicted["a"].number == 6


def test_a_version_covers_a_message_by_any_of_its_numbers(archive: HistoryStore) -> None:
    entry = archive.append(InstanceHistory(), message("one", origin="a", number=5), 1)
    assert [entry.is_covered_by(version) for version in ({"a": 5}, {"a": 4}, {"b": 9}, {})] == [
        True,
        False,
        False,
        False,
    ]
    entry.copies = (("b", 7),)
    assert entry.is_covered_by({"a": 4, "b": 7})
    assert not entry.is_covered_by({"a": 4, "b": 6})


def test_age(archive: HistoryStore) -> None:
    history = filled(archive, at=0)
    assert history.age(10) is None
    archive.append(history, message("1"), 10)
    archive.append(history, message("2"), 15)
    assert history.age(20) == 10


def test_messages_on_very_many_channels_are_found_once(archive: HistoryStore) -> None:
    history, channels = InstanceHistory(), [str(number) for number in range(100)]
    for name in ("1", "2", "3"):
        archive.append(history, message(name, *channels), float(name))
    archive.append(history, message("4", "other"), 4)
    assert ids(history.select(channels, lambda entry: entry.at > 1)) == ["2", "3"]
