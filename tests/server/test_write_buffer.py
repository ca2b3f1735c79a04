"""Write buffers: in order, without copies, and counted."""

from collections.abc import Iterator

import pytest

from aphlict.config.settings import Limits
from aphlict.core.budget import ACCOUNT_BYTES
from aphlict.errors import HistoryEvicted
from aphlict.server.write_buffer import (
    FRAME_COST,
    ITERATOR_COST,
    MAX_CHUNK,
    REFERENCE_COST,
    BufferBudget,
    WriteBuffer,
)
from tests.support.hub import FakeConnection


def new_budget(**limits: int) -> BufferBudget:
    return BufferBudget(Limits(**limits))


def new_buffer(budget: BufferBudget | None = None) -> WriteBuffer:
    return WriteBuffer(budget or new_budget(), FakeConnection())


def sent(buffer: WriteBuffer, at_a_time: int) -> bytes:
    """Send everything to a socket that accepts so many bytes at a time; return it."""
    got = b""
    while chunk := buffer.peek():
        got += bytes(chunk[:at_a_time])
        buffer.advance(min(at_a_time, len(chunk)))
    return got


def test_bytes_are_sent_in_order_in_any_pieces() -> None:
    frames = [b"a", b"b" * 10, b"c" * (MAX_CHUNK + 1), b"d" * 3000, b"e" * MAX_CHUNK]
    for size in (1, 7, 1000, MAX_CHUNK, 10 * MAX_CHUNK):
        buffer = new_buffer()
        for frame in frames:
            buffer.add(frame)
        assert sent(buffer, size) == b"".join(frames)
        assert buffer.size == 0


def test_an_iterator_is_pulled_as_the_socket_accepts_data() -> None:
    made = 0

    def replay() -> Iterator[bytes]:
        nonlocal made
        for number in range(100):
            made += 1
            yield b"%03d" % number * 1000

    buffer = new_buffer()
    buffer.add(b"before")
    buffer.add(replay())
    buffer.add(b"after")
    assert made == 0
    buffer.peek()
    assert made <= MAX_CHUNK // 3000 + 1
    expected = b"before" + b"".join(b"%03d" % number * 1000 for number in range(100)) + b"after"
    assert sent(buffer, 5000) == expected


def test_a_chunk_that_was_not_accepted_is_repeated_and_may_only_grow() -> None:
    """TLS requires the same bytes again."""
    buffer = new_buffer()
    buffer.add(b"first")
    assert bytes(buffer.peek()) == b"first"
    buffer.add(b"second")
    assert bytes(buffer.peek()) == b"firstsecond"


def test_a_frame_of_many_connections_counts_once() -> None:
    budget = new_budget()
    buffers = [new_buffer(budget) for _ in range(1000)]
    frame = b"x" * 10_000
    for buffer in buffers:
        buffer.add(frame)
    assert budget.used == 10_000 + FRAME_COST + 1000 * (REFERENCE_COST + ACCOUNT_BYTES)
    for buffer in buffers:
        buffer.clear()
    assert budget.used == 0


def test_sending_releases_the_memory() -> None:
    budget = new_budget()
    buffer = new_buffer(budget)
    buffer.add(iter([b"x" * 100, b"y" * 100_000]))
    buffer.add(b"z" * 100)
    sent(buffer, 3000)
    assert (budget.used, buffer.size) == (0, 0)


def test_a_replay_counts_whatever_it_yields() -> None:
    budget = new_budget()
    buffer = new_buffer(budget)
    for _ in range(3):
        buffer.add(iter(()))
    assert buffer.size == 3 * ITERATOR_COST
    assert budget.used == 3 * ITERATOR_COST + ACCOUNT_BYTES
    assert not buffer.peek()
    assert (budget.used, buffer.size) == (0, 0)


def test_each_connection_is_charged_its_part_of_a_shared_frame() -> None:
    budget = new_budget()
    holders = [FakeConnection() for _ in range(4)]
    frame = b"x" * (12_000 - FRAME_COST)
    buffers = [WriteBuffer(budget, holder) for holder in holders]
    for buffer in buffers:
        buffer.add(frame)
    assert [budget.held(each) - REFERENCE_COST for each in holders] == [12_000, 6000, 4000, 3000]
    for buffer in buffers:
        assert sent(buffer, 5000) == frame
    assert (budget.used, [budget.held(each) for each in holders]) == (0, [0] * 4)


def test_an_iterator_that_fails_leaves_earlier_frames() -> None:
    def replay() -> Iterator[bytes]:
        yield b"first"
        raise HistoryEvicted

    budget = new_budget()
    buffer = new_buffer(budget)
    buffer.add(b"before")
    buffer.add(replay())
    with pytest.raises(HistoryEvicted):
        buffer.peek()
    assert bytes(buffer._chunk()) == b"beforefirst"
    buffer.clear()
    assert budget.used == 0


def test_a_frame_that_was_begun_is_kept() -> None:
    buffer = new_buffer()
    for letter in (b"a", b"b", b"c"):
        buffer.add(letter * 100)
    buffer.peek()
    buffer.advance(150)
    buffer.clear(but_begun=True)
    buffer.add(b"close")
    assert sent(buffer, 1000) == b"b" * 50 + b"close"


def test_nothing_is_kept_if_nothing_was_begun() -> None:
    buffer = new_buffer()
    buffer.add(b"a" * 100)
    buffer.clear(but_begun=True)
    assert not buffer.peek()


def test_progress_ends_a_stall() -> None:
    buffer = new_buffer()
    buffer.add(b"abc")
    assert buffer.check_stall(10, 5) == 15
    assert buffer.check_stall(10, 5) == 15, "checking does not extend the time"
    buffer.peek()
    buffer.advance(0)
    assert buffer.check_stall(14, 5) == 15
    buffer.advance(1)
    assert buffer.check_stall(15, 5) == 20
    assert buffer.check_stall(20, 5) is None
