"""What addresses owe, without a connection."""

from aphlict.config.settings import Limits
from aphlict.net.debts import FORGIVEN, MAX_PARTIES, MAX_SECONDS, Debts

LIMITS = Limits(limits_commands=50, limits_commands_burst=200)
HERE, THERE = "192.0.2.1", "192.0.2.2"


def owing(units: int, address: str = HERE) -> Debts:
    debts = Debts()
    debts.add(address, units, 10.0, LIMITS)
    return debts


def test_a_debt_is_paid_as_time_passes() -> None:
    assert owing(150).take(HERE, 10.0, LIMITS) == 150
    assert owing(150).take(HERE, 12.0, LIMITS) == 50
    assert owing(150).take(HERE, 13.0, LIMITS) == 0
    assert owing(150).take(THERE, 10.0, LIMITS) == 0


def test_a_debt_goes_to_one_connection() -> None:
    debts = owing(150)
    assert [debts.take(HERE, 10.0, LIMITS) for _ in range(2)] == [150, 0]


def test_debts_add_up_to_a_bound_and_cost_a_connection_its_burst_at_most() -> None:
    debts = Debts()
    for _ in range(1000):
        debts.add(HERE, 200, 10.0, LIMITS)
    taken = [debts.take(HERE, 10.0, LIMITS) for _ in range(16)]
    assert taken == [200] * 15 + [0]
    assert sum(taken) == MAX_SECONDS * LIMITS.limits_commands


def test_little_is_forgiven_unless_it_is_one_browsers() -> None:
    few = 200 // FORGIVEN
    assert owing(few).take(HERE, 10.0, LIMITS) == 0
    assert owing(few + 1).take(HERE, 10.0, LIMITS) == few + 1
    debts = Debts()
    debts.add(HERE, few, 10.0, LIMITS, forgives=False)
    assert debts.take(HERE, 10.0, LIMITS) == few


def test_a_network_of_ipv6_owes_as_one() -> None:
    debts = owing(150, "2001:db8:0:1::1")
    assert debts.take("2001:db8:0:2::1", 10.0, LIMITS) == 0
    assert debts.take("2001:db8:0:1:ffff::2", 10.0, LIMITS) == 150


def test_the_latest_debts_are_remembered() -> None:
    debts = owing(100)
    debts.add(THERE, 150, 10.0, LIMITS)
    for number in range(MAX_PARTIES - 1):
        debts.add(HERE, 1, 10.0, LIMITS, forgives=False)
        debts.add(f"10.0.{number >> 8}.{number & 255}", 150, 10.0, LIMITS)
    assert (debts.take(HERE, 10.0, LIMITS), debts.take(THERE, 10.0, LIMITS)) == (200, 0)
