"""What waits for slow browsers: in order, without copies, and counted."""

from collections.abc import Iterator

from aphlict.config.settings import Limits
from aphlict.net.backlog import CHUNK, ITERATOR_COST, REFERENCE_COST, Backlog, Pool


def pool(**limits: int) -> Pool:
    return Pool(Limits(**limits))


def taken(backlog: Backlog, at_a_time: int) -> bytes:
    """All that waits, as a socket takes it that takes so many bytes at a time."""
    got = b""
    while chunk := backlog.peek():
        got += bytes(chunk[:at_a_time])
        backlog.advance(min(at_a_time, len(chunk)))
    return got


def test_what_was_added_is_taken_in_order_in_any_pieces() -> None:
    frames = [b"a", b"b" * 10, b"c" * (CHUNK + 1), b"d" * 3000, b"e" * CHUNK]
    for size in (1, 7, 1000, CHUNK, 10 * CHUNK):
        backlog = Backlog(pool())
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

    backlog = Backlog(pool())
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
    backlog = Backlog(pool())
    backlog.add(b"first")
    assert bytes(backlog.peek()) == b"first"
    backlog.add(b"second")
    assert bytes(backlog.peek()) == b"firstsecond"


def test_a_frame_that_waits_for_many_counts_once() -> None:
    shared = pool()
    backlogs = [Backlog(shared) for _ in range(1000)]
    frame = b"x" * 10_000
    for backlog in backlogs:
        backlog.add(frame)
    assert shared.used == 10_000 + 1000 * REFERENCE_COST
    for backlog in backlogs:
        backlog.clear()
    assert shared.used == 0


def test_taking_gives_the_memory_back() -> None:
    shared = pool()
    backlog = Backlog(shared)
    backlog.add(iter([b"x" * 100, b"y" * 100_000]))
    backlog.add(b"z" * 100)
    taken(backlog, 3000)
    assert (shared.used, backlog.size) == (0, 0)


def test_past_the_bound_of_one() -> None:
    backlog = Backlog(pool(limits_waiting=1000))
    assert backlog.add(b"x" * 1000)
    assert not backlog.add(b"x")


def test_replays_count_whatever_they_bring() -> None:
    backlog = Backlog(pool(limits_waiting=3 * ITERATOR_COST))
    assert all(backlog.add(iter(())) for _ in range(3))
    assert not backlog.add(iter(()))


def test_when_many_are_slow_the_slowest_go_first() -> None:
    shared = pool(limits_waiting=1000, limits_waiting_all=4000)
    slowest, slow = Backlog(shared), Backlog(shared)
    for number in range(9):
        assert slowest.add(b"%d" % number * 100)
    others = [Backlog(shared) for _ in range(24)]
    for number, backlog in enumerate(others):
        assert backlog.add(b"%02d" % number * 45)
    assert slow.add(b"a" * 100)
    assert not slowest.add(b"b")


def test_what_was_begun_is_ended() -> None:
    backlog = Backlog(pool())
    for letter in (b"a", b"b", b"c"):
        backlog.add(letter * 100)
    backlog.peek()
    backlog.advance(150)
    backlog.clear(but_begun=True)
    backlog.add(b"close")
    assert taken(backlog, 1000) == b"b" * 50 + b"close"


def test_nothing_is_kept_where_nothing_was_begun() -> None:
    backlog = Backlog(pool())
    backlog.add(b"a" * 100)
    backlog.clear(but_begun=True)
    assert not backlog.peek()


def test_taking_something_shows_life() -> None:
    backlog = Backlog(pool())
    backlog.add(b"abc")
    assert backlog.next_look(10, 5) == 15
    assert backlog.next_look(10, 5) == 15, "who looks twice does not count twice"
    backlog.peek()
    backlog.advance(0)
    assert backlog.next_look(14, 5) == 15
    backlog.advance(1)
    assert backlog.next_look(15, 5) == 20
    assert backlog.next_look(20, 5) is None
