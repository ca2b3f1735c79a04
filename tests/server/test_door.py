"""Who may come in."""

import pytest

from aphlict.errors import TooManyConnections, TooManyFromAddress
from aphlict.server.limits import MAX_PENDING, ConnectionLimiter, PendingSlots, TokenBucket


def test_as_many_as_there_is_room_for() -> None:
    door = ConnectionLimiter(2, None)
    door.enter("a")
    door.enter("a")
    with pytest.raises(TooManyConnections):
        door.enter("b")
    door.leave("a")
    door.enter("b")
    assert door.inside == 2


def test_as_many_as_an_address_may_have() -> None:
    door = ConnectionLimiter(100, 2)
    door.enter("a")
    door.enter("a")
    with pytest.raises(TooManyFromAddress):
        door.enter("a")
    door.enter("b")
    door.leave("a")
    door.enter("a")
    assert door.inside == 3


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
    door = ConnectionLimiter(100, 1)
    door.enter(first)
    if are_one:
        with pytest.raises(TooManyFromAddress):
            door.enter(second)
        door.leave(first)
    door.enter(second)


def test_one_who_is_identified_later() -> None:
    door = ConnectionLimiter(100, 1)
    door.enter(None)
    door.rename("proxy", "a")
    door.enter(None)
    with pytest.raises(TooManyFromAddress):
        door.rename("proxy", "a")
    door.leave("a")
    with pytest.raises(TooManyFromAddress):
        door.enter("a")
    door.leave("a")
    door.enter("a")


def test_a_limit_that_comes_later_counts_who_is_in() -> None:
    door = ConnectionLimiter(100, None)
    door.enter("a")
    door.enter("a")
    door.reload(100, 2, ["a", "a"])
    with pytest.raises(TooManyFromAddress):
        door.enter("a")
    door.reload(100, None, [])
    door.enter("a")


def test_the_porch_is_small() -> None:
    porch = PendingSlots()
    assert [porch.enter() for _ in range(MAX_PENDING + 1)] == [True] * MAX_PENDING + [False]
    porch.leave("a")
    assert porch.enter()


def test_a_pace_is_kept() -> None:
    pace = TokenBucket(10)
    for _ in range(10):
        assert not pace.is_spent
        pace.take()
    assert pace.is_spent
    pace.refill(0.25)
    taken = 0
    while not pace.is_spent:
        pace.take()
        taken += 1
    assert taken == 2
    pace.refill(3600)
    assert not pace.is_spent


def test_no_pace() -> None:
    pace = TokenBucket(None)
    for _ in range(1000):
        pace.take()
    assert not pace.is_spent


def test_a_pace_that_is_set_later_begins_then() -> None:
    pace = TokenBucket(None)
    for _ in range(1000):
        pace.take()
    pace.a_second = 10
    pace.refill(0.25)
    assert not pace.is_spent
