"""What waits for slow browsers: in order, without copies, and counted."""

from collections.abc import Iterator

import pytest

from aphlict.config.settings import Limits
from aphlict.core.budget import ACCOUNT_BYTES
from aphlict.errors import HistoryEvicted
from aphlict.server.write_buffer import (
    CHUNK,
    FRAME_COST,
    ITERATOR_COST,
    REFERENCE_COST,
    BufferBudget,
    WriteBuffer,
)
from tests.support.hub import FakeConnection


def pool(**limits: int) -> BufferBudget:
    return BufferBudget(Limits(**limits))


def waiting(shared: BufferBudget | None = None) -> WriteBuffer:
    """The backlog of a connection."""
    return WriteBuffer(shared or pool(), FakeConnection())


def taken(backlog: WriteBuffer, at_a_time: int) -> bytes:
    """All that waits, as a socket takes it that takes so many bytes at a time."""
    got = b""
    while chunk := backlog.peek():
        got += bytes(chunk[:at_a_time])
        backlog.advance(min(at_a_time, len(chunk)))
    return got


def test_what_was_added_is_taken_in_order_in_any_pieces() -> None:
    frames = [b"a", b"b" * 10, b"c" * (CHUNK + 1), b"d" * 3000, b"e" * CHUNK]
    for size in (1, 7, 1000, CHUNK, 10 * CHUNK):
        backlog = waiting()
        for frame in frames:
            backlog.add(frame)
        assert taken(backlog, size) == b"".join(frames)
        assert backlog.size == 0


def test_an_iterator_is_taken_as_the_network_takes_it() -> None:
    made = 0

    def replay() -> Iterator[bytes]:
        nonlocal made
        for number in range(100):
            made += 1
            yield b"%03d" % number * 1000

    backlog = waiting()
    backlog.add(b"before")
    backlog.add(replay())
    backlog.add(b"after")
    assert made == 0
    backlog.peek()
    assert made <= CHUNK // 3000 + 1
    expected = b"before" + b"".join(b"%03d" % number * 1000 for number in range(100)) + b"after"
    assert taken(backlog, 5000) == expected


def test_a_chunk_that_was_not_taken_comes_again_and_may_only_grow() -> None:
    """TLS must be given the same bytes again."""
    backlog = waiting()
    backlog.add(b"first")
    assert bytes(backlog.peek()) == b"first"
    backlog.add(b"second")
    assert bytes(backlog.peek()) == b"firstsecond"


def test_a_frame_that_waits_for_many_counts_once() -> None:
    shared = pool()
    backlogs = [waiting(shared) for _ in range(1000)]
    frame = b"x" * 10_000
    for backlog in backlogs:
        backlog.add(frame)
    assert shared.used == 10_000 + FRAME_COST + 1000 * (REFERENCE_COST + ACCOUNT_BYTES)
    for backlog in backlogs:
        backlog.clear()
    assert shared.used == 0


def test_taking_gives_the_memory_back() -> None:
    shared = pool()
    backlog = waiting(shared)
    backlog.add(iter([b"x" * 100, b"y" * 100_000]))
    backlog.add(b"z" * 100)
    taken(backlog, 3000)
    assert (shared.used, backlog.size) == (0, 0)


def test_a_replay_counts_whatever_it_brings() -> None:
    shared = pool()
    backlog = waiting(shared)
    for _ in range(3):
        backlog.add(iter(()))
    assert backlog.size == 3 * ITERATOR_COST
    assert shared.used == 3 * ITERATOR_COST + ACCOUNT_BYTES
    assert not backlog.peek()
    assert (shared.used, backlog.size) == (0, 0)


def test_each_is_charged_its_part_of_a_frame_that_waits_for_many() -> None:
    shared = pool()
    holders = [FakeConnection() for _ in range(4)]
    frame = b"x" * (12_000 - FRAME_COST)
    backlogs = [WriteBuffer(shared, holder) for holder in holders]
    for backlog in backlogs:
        backlog.add(frame)
    assert [shared.held(each) - REFERENCE_COST for each in holders] == [12_000, 6000, 4000, 3000]
    for backlog in backlogs:
        assert taken(backlog, 5000) == frame
    assert (shared.used, [shared.held(each) for each in holders]) == (0, [0] * 4)


def test_an_iterator_that_fails_leaves_what_came_before_it() -> None:
    def replay() -> Iterator[bytes]:
        yield b"first"
        raise HistoryEvicted

    shared = pool()
    backlog = waiting(shared)
    backlog.add(b"before")
    backlog.add(replay())
    with pytest.raises(HistoryEvicted):
        backlog.peek()
    assert bytes(backlog._chunk()) == b"beforefirst"
    backlog.clear()
    assert shared.used == 0


def test_what_was_begun_is_ended() -> None:
    backlog = waiting()
    for letter in (b"a", b"b", b"c"):
        backlog.add(letter * 100)
    backlog.peek()
    backlog.advance(150)
    backlog.clear(but_begun=True)
    backlog.add(b"close")
    assert taken(backlog, 1000) == b"b" * 50 + b"close"


def test_nothing_is_kept_where_nothing_was_begun() -> None:
    backlog = waiting()
    backlog.add(b"a" * 100)
    backlog.clear(but_begun=True)
    assert not backlog.peek()


def test_taking_something_shows_life() -> None:
    backlog = waiting()
    backlog.add(b"abc")
    assert backlog.check_stall(10, 5) == 15
    assert backlog.check_stall(10, 5) == 15, "who looks twice does not count twice"
    backlog.peek()
    backlog.advance(0)
    assert backlog.check_stall(14, 5) == 15
    backlog.advance(1)
    assert backlog.check_stall(15, 5) == 20
    assert backlog.check_stall(20, 5) is None
