"""Version vectors: up to where a node has the messages of each origin, now and at an earlier offset."""

from math import inf

import pytest

from aphlict.core.version_vector import (
    LISTED_SECONDS,
    MAX_LISTED,
    MAX_ORIGINS,
    NAME_LENGTH,
    MessageOrigin,
    VersionVector,
    new_origin_name,
)


def accepted(*sequences: int, number: int = 0) -> MessageOrigin:
    """An origin whose next messages were accepted at these sequences."""
    origin = MessageOrigin("originaa", number, 0.0)
    for place, sequence in enumerate(sequences, number + 1):
        origin.record(place, sequence)
    return origin


def test_the_number_at_an_offset_is_that_of_the_last_message_by_then() -> None:
    origin = accepted(3, 5, 6)
    assert [origin.number_at(sequence) for sequence in range(8)] == [0, 0, 0, 1, 1, 2, 3, 3]


def test_kept_messages_beyond_a_number_were_accepted_after_a_sequence() -> None:
    origin = accepted(3, 5, 6)
    assert [origin.sequence_before(number) for number in range(5)] == [0, 4, 5, inf, inf]


def test_a_number_counts_once() -> None:
    origin = accepted(3, 5)
    origin.record(1, 9)
    assert origin.number == 2
    assert origin.number_at(9) == 2


def test_an_earlier_offset_does_not_cover_what_is_given_up_later() -> None:
    origin = accepted(3)
    origin.skip_to(7, sequence=8, now=60.0)
    assert (origin.base, origin.base_at, origin.number) == (7, 60.0, 7)
    assert [origin.number_at(sequence) for sequence in (2, 3, 7, 8)] == [0, 1, 1, 7]


def test_numbers_that_are_known_are_not_given_up() -> None:
    origin = accepted(3, 5)
    origin.skip_to(1, sequence=8, now=60.0)
    assert (origin.base, origin.number) == (0, 2)


@pytest.mark.parametrize("until", [1, 3, 4, 6, 9, 100])
def test_trimming_changes_nothing_after_the_oldest_message(until: int) -> None:
    origin, trimmed = accepted(3, 5, 6, 9, number=10), accepted(3, 5, 6, 9, number=10)
    trimmed.trim(until)
    for sequence in range(until - 1, 12):
        assert trimmed.number_at(sequence) == origin.number_at(sequence)


def test_what_was_forgotten_is_not_covered_by_an_offset_before_it() -> None:
    origin = accepted(3, 5)
    origin.skip_to(9, sequence=6, now=0.0)
    origin.record(10, 7)
    origin.trim(4)
    assert origin.number_at(0) == 1


def test_an_origin_is_listed_for_ten_minutes_after_it_was_heard() -> None:
    origins = VersionVector("ownownow", 0.0)
    origins.register("otherone", 5, 100.0)
    assert origins.version_at(0, 99.0 + LISTED_SECONDS) == {"ownownow": 0, "otherone": 5}
    assert origins.version_at(0, 101.0 + LISTED_SECONDS) == {"ownownow": 0}


def test_a_restart_loop_takes_bounded_memory_and_bounded_tokens() -> None:
    origins = VersionVector("ownownow", 0.0)
    for second in range(3 * MAX_ORIGINS):
        origins.register(f"{second:08}", 1, float(second))
    now = float(3 * MAX_ORIGINS)
    assert len(list(origins)) == MAX_ORIGINS
    assert origins.get("ownownow") is origins.own
    listed = origins.version_at(0, now)
    assert len(listed) == MAX_LISTED
    assert {"ownownow", f"{3 * MAX_ORIGINS - 1:08}"} <= listed.keys()


def test_a_node_that_is_cut_off_lists_origins_until_it_has_compared_with_the_others() -> None:
    origins = VersionVector("ownownow", 0.0)
    origins.register("otherone", 5, 100.0)
    origins.compared_at = 50.0 + LISTED_SECONDS
    assert "otherone" in origins.version_at(0, 10 * LISTED_SECONDS)
    origins.compared_at = 101.0 + LISTED_SECONDS
    assert "otherone" not in origins.version_at(0, 10 * LISTED_SECONDS)


def test_a_restart_loop_without_messages_takes_no_place_in_tokens() -> None:
    origins = VersionVector("ownownow", 0.0)
    origins.register("otherone", 5, 0.0)
    for second in range(2 * MAX_LISTED):
        origins.register(f"{second:08}", 0, float(second))
    assert origins.version_at(0, 300.0) == {"ownownow": 0, "otherone": 5}


def test_names_of_origins_are_not_repeated() -> None:
    names = {new_origin_name() for _ in range(1000)}
    assert len(names) == 1000
    assert {len(name) for name in names} == {NAME_LENGTH}
