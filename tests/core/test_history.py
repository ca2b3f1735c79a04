"""The history: its bounds, and searches in it."""

from collections.abc import Collection

import pytest

from aphlict.core.history import MAX_EVICTED_ENTRIES, Entry, HistoryStore, InstanceHistory
from aphlict.core.message import Message, digest
from tests.support.memory import kept


def message(name: str, *channels: str, size: int = 0) -> Message:
    """A message of about this size."""
    return Message("default", name, channels or ("a",), (), b"x" * size)


COST = message("x").memory_size


def ids(entries: Collection[Entry]) -> list[str]:
    """The uniqueIDs of the messages."""
    return [entry.message.unique_id for entry in entries]


def filled(archive: HistoryStore, *names: str, at: float = 0.0) -> InstanceHistory:
    """A history with these messages, all of them on channel a."""
    history = InstanceHistory("origin")
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
    first, second = InstanceHistory("o"), InstanceHistory("o")
    for number in range(3):
        archive.append(first, message(f"first{number}"), 0)
    for number in range(4):
        archive.append(second, message(f"second{number}"), 0)
    assert ids(first.entries) == ["first2"]
    assert len(second) == 4


def test_the_bound_in_bytes_is_enforced() -> None:
    archive = HistoryStore(max_memory=100 * COST)
    history = InstanceHistory("o")
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
    history, other = InstanceHistory("origin"), InstanceHistory("other")
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
    history = InstanceHistory("o")
    for number in range(100):
        archive.append(history, message(str(number), f"channel{number}", "all"), 0)
    archive.expire(1000)
    assert archive.memory_size == 0
    assert history.select(["all", "channel5"], lambda _: True) == []
    assert not [each for each in kept(history, str) if each.startswith("channel")]
    assert not kept(history, Entry)


# Searching


def test_entries_are_found_by_channel_in_order_and_once(archive: HistoryStore) -> None:
    history = InstanceHistory("o")
    for name, channels in (("1", "a"), ("2", "b"), ("3", "ab"), ("4", "c"), ("5", "ba")):
        archive.append(history, message(name, *channels), 0)
    assert ids(history.select(["a"], lambda _: True)) == ["1", "3", "5"]
    assert ids(history.select(["b", "a"], lambda _: True)) == ["1", "2", "3", "5"]
    assert ids(history.select(["a", "missing"], lambda _: True)) == ["1", "3", "5"]
    assert history.select(["missing"], lambda _: True) == []
    assert history.select([], lambda _: True) == []


def test_a_search_ends_at_the_first_unwanted_entry(archive: HistoryStore) -> None:
    history = InstanceHistory("o")
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


def test_the_sequence_of_unique_ids_is_the_lowest(archive: HistoryStore) -> None:
    history = filled(archive, "1", "2", "3")
    assert history.sequence_of(["2"]) == 2
    assert history.sequence_of(["3", "2", "unknown"]) == 2
    assert history.sequence_of(["unknown"]) is None
    assert history.sequence_of([]) is None


def test_nothing_is_missing_after_the_last_evicted_message() -> None:
    archive = HistoryStore(1 << 26, max_messages=2)
    history = filled(archive, "1", "2", "3", "4")
    assert history.sequence_of(["1"]) is None
    assert history.sequence_of(["2"]) == 0
    assert history.sequence_of(["3"]) == 3


def test_the_start_of_a_history_has_a_name(archive: HistoryStore) -> None:
    history = filled(archive)
    assert history.sequence_of(["origin"]) == 0
    archive.append(history, message("1"), 0)
    archive.expire(1000)
    assert history.sequence_of(["origin"]) is None
    assert history.sequence_of(["1"]) == 0


def test_age(archive: HistoryStore) -> None:
    history = filled(archive, at=0)
    assert history.age(10) is None
    archive.append(history, message("1"), 10)
    archive.append(history, message("2"), 15)
    assert history.age(20) == 10


def test_channels_without_messages_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `ack` searches for the newest messages of the subscribed channels."""
    full = filled(HistoryStore(1 << 30), *map(str, range(100)))
    monkeypatch.setattr("aphlict.core.history._is_on", lambda *_: pytest.fail("looks through the history"))
    assert full.newest([f"quiet {number}" for number in range(1000)], 1000, 8) == []
    newest = full.newest(["a", *(f"quiet {number}" for number in range(1000))], 1000, 2)
    assert ids(newest) == ["99", "98"]


def test_many_channels_with_old_messages_are_searched_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer messages on other channels are not searched."""
    archive, history = HistoryStore(1 << 30), InstanceHistory("origin")
    old = [f"old {number}" for number in range(100)]
    for name in (*old, *(f"new {number}" for number in range(1000))):
        archive.append(history, message(name, name), 0)
    looked_at: list[Entry] = []
    monkeypatch.setattr("aphlict.core.history._is_on", lambda entry, _: looked_at.append(entry))
    assert ids(history.newest(old, 2000, 2)) == ["old 99", "old 98"]
    assert ids(history.newest(old, 50, 2)) == ["old 49", "old 48"]
    assert len(looked_at) < 200


def test_messages_on_very_many_channels_are_found_once(archive: HistoryStore) -> None:
    history, channels = InstanceHistory("origin"), [str(number) for number in range(100)]
    for name in ("1", "2", "3"):
        archive.append(history, message(name, *channels), float(name))
    archive.append(history, message("4", "other"), 4)
    assert ids(history.newest(channels, 10, 2)) == ["3", "2"]
    assert ids(history.newest(channels, 2, 2)) == ["2", "1"]
    assert ids(history.select(channels, lambda entry: entry.at > 1)) == ["2", "3"]


def test_the_sequence_at_a_time() -> None:
    archive, history = HistoryStore(1 << 26, max_messages=3), InstanceHistory("origin")
    for second in range(5):
        archive.append(history, message(str(second)), second)
    assert [history.sequence_at(at) for at in (0, 2, 2.5, 3, 9)] == [2, 3, 3, 4, 5]


def test_the_sequence_at_a_time_among_restored_messages(archive: HistoryStore) -> None:
    """Messages accepted by then are at or before it, later ones are not."""
    history = InstanceHistory("origin")
    for at in (10, 20, 5, 6, 30):
        archive.append(history, message(f"at {at}"), at)
    assert [history.sequence_at(at) for at in (5, 10, 20, 29, 30)] == [0, 1, 4, 4, 5]


def test_nothing_later_than_the_time_of_eviction_was_evicted() -> None:
    archive, history = HistoryStore(1 << 26, max_messages=1), InstanceHistory("origin")
    for at in (10, 5, 30):
        archive.append(history, message(f"at {at}"), at)
    assert history.evicted_at == 10


def test_the_digest_of_a_message_is_computed_once(archive: HistoryStore) -> None:
    [entry] = filled(archive, "one").entries
    assert entry.digest == digest("one")
    assert entry.digest is entry.digest
