"""A connection as the budgets see it, without a socket."""

from collections.abc import Hashable


class Connection:
    """Keeps the limit that it was closed for. `party`: the address that it is counted by."""

    def __init__(self, party: Hashable = None) -> None:
        self.party = party
        self.limit: str | None = None

    def give_up(self, limit: str, /) -> None:
        """Part of the budget's Holder."""
        self.limit = limit
