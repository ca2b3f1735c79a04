"""The budget: which connection is closed when it is full."""

import random
import time
from collections.abc import Hashable

import pytest

from aphlict.core.budget import ACCOUNT_BYTES, MAX_CLOSED, Budget, Ranking
from tests.support.hub import FakeConnection
from tests.support.memory import kept, without_collector

SHARE = 1000
LIMIT = 100_000


class Asker(FakeConnection):
    """A connection that releases all that it holds when it is closed."""

    def __init__(self, budget: Budget, limit_key: Hashable = "a") -> None:
        super().__init__(limit_key)
        self.budget = budget

    def hold(self, size: int) -> None:
        """Hold more bytes."""
        self.budget.used += size
        self.budget.attribute(self, size)

    def ask(self, size: int) -> str | None:
        """Hold more bytes, if there is room."""
        self.hold(size)
        return self.budget.make_room(self)

    def close_over_limit(self, limit: str, /) -> None:
        """Part of the budget's Holder."""
        super().close_over_limit(limit)
        self.hold(-self.budget.held(self))


@pytest.fixture
def budget() -> Budget:
    return Budget("limit", LIMIT, SHARE, "limit.address", LIMIT // 2)


def test_no_connection_is_closed_below_the_limit(budget: Budget) -> None:
    some = [Asker(budget, number) for number in range(10)]
    assert [each.ask(LIMIT // 10 - ACCOUNT_BYTES) for each in some] == [None] * 10
    assert budget.used == LIMIT
    assert not budget.is_full


def test_the_largest_holder_is_closed_rather_than_the_asking_one(budget: Budget) -> None:
    large, small = Asker(budget, "a"), Asker(budget, "b")
    large.hold(LIMIT - 5000)
    assert small.ask(3000) is None
    assert (large.limit, small.limit) == ("limit", None)
    assert budget.used == 3000 + ACCOUNT_BYTES


def test_the_asking_connection_is_closed_if_it_holds_most(budget: Budget) -> None:
    small, large = Asker(budget, "a"), Asker(budget, "b")
    small.hold(10_000)
    assert large.ask(LIMIT) == "limit"
    assert small.limit is None


def test_the_connections_of_an_address_count_together(budget: Budget) -> None:
    """An address cannot displace a larger connection of another by opening many small ones."""
    many = [Asker(budget, "many") for _ in range(5)]
    one = Asker(budget, "one")
    one.hold(20_000)
    budget.part = LIMIT
    assert [each.ask(16_000) for each in many] == [None] * 5
    assert one.limit is None
    assert [each.limit for each in many].count("limit") == 1


def test_the_memory_of_one_address_is_bounded(budget: Budget) -> None:
    other, first, second = Asker(budget, "b"), Asker(budget), Asker(budget)
    other.hold(40_000)
    first.hold(30_000)
    assert second.ask(25_000) is None
    assert (first.limit, other.limit) == ("limit.address", None)


def test_a_single_connection_is_not_bounded_by_the_part_of_its_address(budget: Budget) -> None:
    assert Asker(budget).ask(LIMIT // 2 + 1000) is None


def test_a_connection_keeps_its_share(budget: Budget) -> None:
    """It is not closed while another connection exceeds its share, even if its address holds more in total."""
    office = [Asker(budget, "office") for _ in range(20)]
    for each in office:
        each.hold(SHARE)
    large = Asker(budget, "large")
    large.hold(SHARE * 2)
    greedy = Asker(budget, "greedy")
    budget.limit = budget.used
    assert greedy.ask(SHARE) is None
    assert large.limit == "limit"
    assert not any(each.limit for each in office)


def test_if_all_keep_to_their_share_the_address_that_has_held_longest_makes_room(budget: Budget) -> None:
    first, second, third = (Asker(budget, number) for number in range(3))
    first.hold(SHARE // 2)
    second.hold(SHARE)
    budget.limit = budget.used
    assert third.ask(SHARE // 2) is None
    assert (first.limit, second.limit, third.limit) == ("limit", None, None)


def test_one_request_closes_a_bounded_number_of_connections(budget: Budget) -> None:
    others = [Asker(budget, number) for number in range(MAX_CLOSED + 5)]
    for each in others:
        each.hold(2000)
    budget.limit = 0
    assert Asker(budget, "x").ask(10) == "limit"
    assert sum(each.limit is not None for each in others) == MAX_CLOSED


def test_a_connection_that_holds_nothing_has_no_account(budget: Budget) -> None:
    some = [Asker(budget, f"address {number % 3}") for number in range(10)]
    for each in some:
        each.hold(5 * SHARE)
        budget.receive(each, 100)
        budget.receive(each, 40)
        assert budget.held(each) == 5 * SHARE + 40
    assert len(kept(budget, Asker)) == len(some)
    for each in some:
        budget.receive(each, 0)
        each.hold(-5 * SHARE)
    assert budget.used == 0
    assert not kept(budget, Asker)
    assert not [each for each in kept(budget, str) if each.startswith("address")]


def test_the_largest_is_found_after_any_sequence_of_operations() -> None:
    chance = random.Random(1)
    ranking, sizes = Ranking[int](), dict[int, int]()
    for item in range(2000):
        if item in sizes or chance.random() < 0.5:
            ranking.add(item, sizes.setdefault(item, chance.randrange(1 << chance.randrange(1, 20))))
        for some in chance.sample(sorted(sizes), min(len(sizes), 3)):
            if chance.random() < 0.5:
                ranking.discard(some, sizes.pop(some))
            else:
                ranking.move(some, sizes[some], size := chance.randrange(1 << 20))
                sizes[some] = size
        largest = ranking.largest()
        if largest is None:
            assert not sizes
        else:
            assert sizes[largest].bit_length() == max(sizes.values()).bit_length()


def test_finding_the_largest_takes_no_longer_among_many() -> None:
    """Each of these closes another connection."""
    budget = Budget("limit", 1 << 60, SHARE)
    took = []
    for count in (1000, 50_000):
        for number in range(count):
            Asker(budget, number).hold(5000 + number % 5000)
        budget.limit = budget.used
        with without_collector():
            began = time.process_time()
            for number in range(500):
                assert Asker(budget, -number).ask(4000) is None
            took.append(time.process_time() - began)
        budget.limit = 1 << 60
    assert took[1] < 10 * took[0]
