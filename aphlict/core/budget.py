"""Memory budgets: what each connection holds of a shared limit, and which one is closed when it is exceeded."""

import math
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

MAX_CLOSED = 16  # connections that are closed to make room for one
ACCOUNT_BYTES = 1500  # of the objects that exist while a connection holds something

Item = TypeVar("Item", bound=Hashable)


class Holder(Protocol):
    """A connection, for a budget."""

    @property
    def limit_key(self) -> Hashable:
        """What the connections of its address have in common; the connection itself where that is unknown."""

    def close_over_limit(self, limit: str, /) -> None:
        """Release what it holds and close. `limit`: the configuration key of the limit that was exceeded."""


class Ranking(Generic[Item]):
    """Items in size classes, each twice as large as the one before.

    Moving an item and finding one of the largest class take constant time, as there are few classes.
    """

    __slots__ = ("_classes",)

    def __init__(self) -> None:
        self._classes: dict[int, dict[Item, None]] = {}

    def add(self, item: Item, size: int) -> None:
        """Add an item of this size."""
        self._classes.setdefault(size.bit_length(), {})[item] = None

    def discard(self, item: Item, size: int) -> None:
        """Remove an item; `size` is the one with which it was added or moved last."""
        number = size.bit_length()
        members = self._classes[number]
        del members[item]
        if not members:
            del self._classes[number]

    def move(self, item: Item, before: int, after: int) -> None:
        """Change the size of an item."""
        self.discard(item, before)
        self.add(item, after)

    def largest(self) -> Item | None:
        """Return the item that has been in the largest class for longest; None without items."""
        return next(iter(self._classes[max(self._classes)])) if self._classes else None


class Account:
    """What one connection holds, in bytes. `incoming`: the part that was received and is incomplete."""

    __slots__ = ("group", "held", "holder", "incoming")

    def __init__(self, holder: Holder, group: "AccountGroup") -> None:
        self.holder = holder
        self.group = group
        self.held = 0
        self.incoming = 0


class AccountGroup:
    """The accounts of one limit key. `above`: the bytes held by those of them that exceed their share."""

    __slots__ = ("above", "accounts", "held", "key")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.held = 0
        self.above = 0
        self.accounts: Ranking[Account] = Ranking()


class Budget:
    """Bytes that connections may hold together.

    When it is exceeded, the largest connection is closed of the address whose connections hold most. A connection
    that holds at most `share` is closed only if no connection exceeds it: then it is the largest of the address that
    has held something for longest.

    `key`, `limit`: the configuration key and the bytes of the budget. `part_key`, `part`: those of the limit for the
    connections of one address, if there is one.
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
        self.accounts: dict[Holder, Account] = {}  # of connections that hold something
        self._groups: dict[Hashable, AccountGroup] = {}
        self._ranking: Ranking[AccountGroup] = Ranking()

    @property
    def is_full(self) -> bool:
        """Whether the limit is exceeded."""
        return self.used > self.limit

    def held(self, holder: Holder) -> int:
        """Return the bytes that are attributed to a connection."""
        account = self.accounts.get(holder)
        return 0 if account is None else account.held

    def attribute(self, holder: Holder, size: int) -> bool:
        """Attribute more bytes to a connection, or fewer if negative, without changing `used`.

        Returns whether the caller has to call `make_room`.
        """
        account = self.accounts.get(holder) or self._open(holder)
        group, before = account.group, account.held
        after = account.held = before + size
        held = group.held = group.held + size
        if before.bit_length() != after.bit_length():
            group.accounts.move(account, before, after)
        if before > self.share or after > self.share:
            self._count_above(group, before, after)
        if not after:
            self._close(account)
        return self.used > self.limit or held > self.part

    def _count_above(self, group: AccountGroup, before: int, after: int) -> None:
        above = group.above + (after if after > self.share else 0) - (before if before > self.share else 0)
        if above.bit_length() != group.above.bit_length():
            self._ranking.move(group, group.above, above)
        group.above = above

    def receive(self, holder: Holder, size: int) -> bool:
        """Set the bytes that a connection has received of something incomplete.

        Returns whether the caller has to call `make_room`.
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
        key = holder.limit_key
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = AccountGroup(key)
            self._ranking.add(group, 0)
        account = self.accounts[holder] = Account(holder, group)
        group.accounts.add(account, 0)
        self.used += ACCOUNT_BYTES
        return account

    def _close(self, account: Account) -> None:
        group = account.group
        del self.accounts[account.holder]
        group.accounts.discard(account, 0)
        if group.accounts.largest() is None:
            del self._groups[group.key]
            self._ranking.discard(group, group.above)
        self.used -= ACCOUNT_BYTES

    def make_room(self, asking: Holder) -> str | None:
        """Close connections until the limits are met: that of the budget, and that of the asking address.

        Returns None if the asking connection may stay, else the key of the limit for which the caller must close it.
        """
        for _ in range(MAX_CLOSED):
            key, group = self._exceeded(asking)
            if not key:
                return None
            account = None if group is None else group.accounts.largest()
            if account is None or account.holder is asking:
                return key
            account.holder.close_over_limit(key)
        return self._exceeded(asking)[0] or None

    def _exceeded(self, asking: Holder) -> tuple[str, AccountGroup | None]:
        """Return the key of an exceeded limit, and the accounts of which the largest has to be closed."""
        if self.used > self.limit:
            return self.key, self._ranking.largest()
        account = self.accounts.get(asking)
        # A single connection has a limit of its own: the part of an address may be too small for one message.
        if account is not None and account.group.held > max(self.part, account.held):
            return self.part_key, account.group
        return "", None
