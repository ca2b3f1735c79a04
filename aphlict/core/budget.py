"""Memory that many connections share: how much each of them holds, and which one is closed when it is full."""

import math
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

MAX_CLOSED = 16  # connections that are closed in a row to make room for one
ACCOUNT_BYTES = 1500  # bytes of the objects that exist while a connection holds something

Item = TypeVar("Item", bound=Hashable)


class Holder(Protocol):
    """A connection, as a budget sees it."""

    @property
    def party(self) -> Hashable:
        """What the connections of its address have in common; the connection itself where that is unknown."""

    def give_up(self, limit: str, /) -> None:
        """Release what it holds and close, since the limit with this configuration key was passed."""


class Ranking(Generic[Item]):
    """Items in classes of sizes, each class twice as large as the one before.

    To move an item, and to find one of the largest class, takes the same short time however many there are.
    """

    __slots__ = ("_classes",)

    def __init__(self) -> None:
        self._classes: dict[int, dict[Item, None]] = {}

    def add(self, item: Item, size: int) -> None:
        """Add an item of this size."""
        self._classes.setdefault(size.bit_length(), {})[item] = None

    def discard(self, item: Item, size: int) -> None:
        """Take an item away; `size` is the one that it was added with, or moved to."""
        number = size.bit_length()
        members = self._classes[number]
        del members[item]
        if not members:
            del self._classes[number]

    def move(self, item: Item, before: int, after: int) -> None:
        """Note another size of an item."""
        self.discard(item, before)
        self.add(item, after)

    def largest(self) -> Item | None:
        """An item of the largest class: the one that has been in it for longest."""
        return next(iter(self._classes[max(self._classes)])) if self._classes else None


class Account:
    """What one connection holds of a budget. `incoming`: the part of it that has arrived and is not whole yet."""

    __slots__ = ("held", "holder", "incoming", "party")

    def __init__(self, holder: Holder, party: "Party") -> None:
        self.holder = holder
        self.party = party
        self.held = 0
        self.incoming = 0


class Party:
    """The accounts of one address. `above`: what those connections hold together that hold more than their share."""

    __slots__ = ("above", "accounts", "held", "name")

    def __init__(self, name: Hashable) -> None:
        self.name = name
        self.held = 0
        self.above = 0
        self.accounts: Ranking[Account] = Ranking()


class Budget:
    """Bytes that connections may hold together.

    When it is full, the address whose connections hold most loses the connection that holds most. A connection that
    holds no more than `share` is passed over as long as another one holds more than that. Where all keep to it,
    the address that has held something for longest loses its largest one.

    `key`, `limit`: the configuration key of the budget, and its bytes. `part_key`, `part`: those of what the
    connections of one address may hold together, if there is such a bound.
    """

    def __init__(
        self, key: str, limit: int, share: int = 0, part_key: str = "", part: float = math.inf
    ) -> None:
        self.key = key
        self.limit = limit
        self.share = share
        self.part_key = part_key
        self.part = part
        self.used = 0
        self.accounts: dict[Holder, Account] = {}  # of those that hold something
        self._parties: dict[Hashable, Party] = {}
        self._ranking: Ranking[Party] = Ranking()

    @property
    def is_full(self) -> bool:
        """Whether more is held than may be."""
        return self.used > self.limit

    def held(self, holder: Holder) -> int:
        """The bytes that are attributed to a connection."""
        account = self.accounts.get(holder)
        return 0 if account is None else account.held

    def attribute(self, holder: Holder, size: int) -> bool:
        """Attribute so many bytes more to a connection, fewer where it is negative; `used` stays as it is.

        Returns whether `make_room` has to be called.
        """
        account = self.accounts.get(holder) or self._open(holder)
        party, before = account.party, account.held
        after = account.held = before + size
        held = party.held = party.held + size
        if before.bit_length() != after.bit_length():
            party.accounts.move(account, before, after)
        if before > self.share or after > self.share:
            self._count_above(party, before, after)
        if not after:
            self._close(account)
        return self.used > self.limit or held > self.part

    def _count_above(self, party: Party, before: int, after: int) -> None:
        above = party.above + (after if after > self.share else 0) - (before if before > self.share else 0)
        if above.bit_length() != party.above.bit_length():
            self._ranking.move(party, party.above, above)
        party.above = above

    def receive(self, holder: Holder, size: int) -> bool:
        """Count what has arrived of something that is not whole yet: so many bytes now, in place of those before.

        Returns whether `make_room` has to be called.
        """
        account = self.accounts.get(holder)
        more = size - (0 if account is None else account.incoming)
        if not more:
            return False
        account = account or self._open(holder)
        account.incoming = size
        self.used += more
        return self.attribute(holder, more)

    def _open(self, holder: Holder) -> Account:
        name = holder.party
        party = self._parties.get(name)
        if party is None:
            party = self._parties[name] = Party(name)
            self._ranking.add(party, 0)
        account = self.accounts[holder] = Account(holder, party)
        party.accounts.add(account, 0)
        self.used += ACCOUNT_BYTES
        return account

    def _close(self, account: Account) -> None:
        party = account.party
        del self.accounts[account.holder]
        party.accounts.discard(account, 0)
        if party.accounts.largest() is None:
            del self._parties[party.name]
            self._ranking.discard(party, party.above)
        self.used -= ACCOUNT_BYTES

    def make_room(self, asker: Holder) -> str | None:
        """Close connections until the budget is kept, and the part of the asker's address.

        Returns None where the asker may stay, else the key of the limit for which it has to be closed.
        """
        for _ in range(MAX_CLOSED):
            key, party = self._passed(asker)
            if not key:
                return None
            account = None if party is None else party.accounts.largest()
            if account is None or account.holder is asker:
                return key
            account.holder.give_up(key)
        return self._passed(asker)[0] or None

    def _passed(self, asker: Holder) -> tuple[str, Party | None]:
        """The key of a limit that is passed, and the party that has to do something about it."""
        if self.used > self.limit:
            return self.key, self._ranking.largest()
        account = self.accounts.get(asker)
        # One connection alone has a bound of its own, or the part of an address might be too small for a message.
        if account is not None and account.party.held > max(self.part, account.held):
            return self.part_key, account.party
        return "", None
