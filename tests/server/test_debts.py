"""CommandDebts of addresses whose connections have ended."""

from aphlict.config.settings import Limits
from aphlict.server.limits import FORGIVEN_PART, MAX_DEBTS, CommandDebts

LIMITS = Limits(commands=50, commands_burst=200)
HERE, THERE = "192.0.2.1", "192.0.2.2"


def owing(units: int, address: str = HERE) -> CommandDebts:
    debts = CommandDebts()
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


def test_each_debt_costs_one_connection_its_burst_at_most() -> None:
    debts = CommandDebts()
    for units in (150, 50, 450):
        debts.add(HERE, units, 10.0, LIMITS)
    assert [debts.take(HERE, 10.0, LIMITS) for _ in range(6)] == [200, 200, 50, 50, 150, 0]


def test_a_debt_that_has_been_paid_hides_no_other() -> None:
    debts = CommandDebts()
    debts.add(HERE, 400, 10.0, LIMITS)
    debts.add(HERE, 50, 10.0, LIMITS)
    assert [debts.take(HERE, 12.0, LIMITS) for _ in range(3)] == [200, 100, 0]


def test_little_is_forgiven_unless_it_is_one_browsers() -> None:
    few = 200 // FORGIVEN_PART
    assert owing(few).take(HERE, 10.0, LIMITS) == 0
    assert owing(few + 1).take(HERE, 10.0, LIMITS) == few + 1
    debts = CommandDebts()
    debts.add(HERE, few, 10.0, LIMITS, forgives=False)
    assert debts.take(HERE, 10.0, LIMITS) == few


def test_a_network_of_ipv6_owes_as_one() -> None:
    debts = owing(150, "2001:db8:0:1::1")
    assert debts.take("2001:db8:0:2::1", 10.0, LIMITS) == 0
    assert debts.take("2001:db8:0:1:ffff::2", 10.0, LIMITS) == 150


def test_the_latest_debts_are_remembered() -> None:
    debts = owing(150)
    for number in range(MAX_DEBTS):
        debts.add(f"10.0.{number >> 8}.{number & 255}", 150, 10.0, LIMITS)
    assert (debts.take(HERE, 10.0, LIMITS), debts.take("10.0.0.0", 10.0, LIMITS)) == (0, 150)
    for _ in range(MAX_DEBTS):
        debts.add(THERE, 150, 10.0, LIMITS)
    taken = [debts.take(THERE, 10.0, LIMITS) for _ in range(MAX_DEBTS + 1)]
    assert taken == [150] * MAX_DEBTS + [0]
