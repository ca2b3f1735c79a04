"""Limits of connections: in total, from each address, each second."""

import pytest

from aphlict.errors import TooManyConnections, TooManyFromAddress
from aphlict.server.limits import MAX_REJECTIONS, ConnectionLimiter, PendingSlots, RejectionSlots, TokenBucket


def test_connections_in_total() -> None:
    limiter = ConnectionLimiter(2, None)
    limiter.acquire("a")
    limiter.acquire("a")
    with pytest.raises(TooManyConnections):
        limiter.acquire("b")
    limiter.release("a")
    limiter.acquire("b")
    assert limiter.used == 2


def test_connections_from_an_address() -> None:
    limiter = ConnectionLimiter(100, 2)
    limiter.acquire("a")
    limiter.acquire("a")
    with pytest.raises(TooManyFromAddress):
        limiter.acquire("a")
    limiter.acquire("b")
    limiter.release("a")
    limiter.acquire("a")
    assert limiter.used == 3


@pytest.mark.parametrize(
    ("first", "second", "are_one"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1", True),
    ],
)
def test_a_network_of_ipv6_counts_as_one_address(first: str, second: str, are_one: bool) -> None:
    limiter = ConnectionLimiter(100, 1)
    limiter.acquire(first)
    if are_one:
        with pytest.raises(TooManyFromAddress):
            limiter.acquire(second)
        limiter.release(first)
    limiter.acquire(second)


def test_a_client_that_is_identified_later() -> None:
    limiter = ConnectionLimiter(100, 1)
    limiter.acquire(None)
    limiter.rekey("proxy", "a")
    limiter.acquire(None)
    with pytest.raises(TooManyFromAddress):
        limiter.rekey("proxy", "a")
    limiter.release("a")
    with pytest.raises(TooManyFromAddress):
        limiter.acquire("a")
    limiter.release("a")
    limiter.acquire("a")


def test_a_limit_that_is_set_later_counts_present_connections() -> None:
    limiter = ConnectionLimiter(100, None)
    limiter.acquire("a")
    limiter.acquire("a")
    limiter.reload(100, 2, ["a", "a"])
    with pytest.raises(TooManyFromAddress):
        limiter.acquire("a")
    limiter.reload(100, None, [])
    limiter.acquire("a")


def test_few_connections_are_rejected_at_the_same_time() -> None:
    slots = RejectionSlots()
    assert [slots.acquire() for _ in range(MAX_REJECTIONS + 1)] == [True] * MAX_REJECTIONS + [False]
    slots.release("a")
    assert slots.acquire()


def test_as_many_connections_are_pending_as_would_be_accepted() -> None:
    slots = PendingSlots()
    available = 2 * MAX_REJECTIONS
    assert [slots.acquire(available) for _ in range(available + 1)] == [True] * available + [False]
    slots.release()
    assert slots.acquire(available)
    assert not slots.acquire(0)


def test_a_rate_is_kept() -> None:
    bucket = TokenBucket(10)
    for _ in range(10):
        assert not bucket.is_empty
        bucket.take()
    assert bucket.is_empty
    bucket.refill(0.25)
    taken = 0
    while not bucket.is_empty:
        bucket.take()
        taken += 1
    assert taken == 2
    bucket.refill(3600)
    assert not bucket.is_empty


def test_no_rate() -> None:
    bucket = TokenBucket(None)
    for _ in range(1000):
        bucket.take()
    assert not bucket.is_empty


def test_a_rate_that_is_set_later_applies_from_then_on() -> None:
    bucket = TokenBucket(None)
    for _ in range(1000):
        bucket.take()
    bucket.rate = 10
    bucket.refill(0.25)
    assert not bucket.is_empty
