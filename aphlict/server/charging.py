"""The part of a connection that charges it for what the server does for it."""

import math
import socket

from aphlict.server.context import Surroundings
from aphlict.server.poller import READ, WRITE
from aphlict.server.sending import Sender, State
from aphlict.server.tls_socket import MAX_EMPTY_RECORDS, TLSSocket


class Payer(Sender):
    """A connection that has so many units a second: past its burst, reading pauses."""

    __slots__ = ("_spent",)

    def __init__(self, sock: socket.socket, address: str, context: Surroundings) -> None:
        super().__init__(sock, address, context)
        # What its commands have cost, in units; it is given back at `limits.commands` a second.
        self._spent = context.debts.take(address, context.deadlines.now, context.limits)

    def charge(self, cost: int) -> None:
        """Count what is going to be done for this browser, in units: past `limits.commands.burst` reading pauses."""
        self._spent += cost
        excess = self._spent - self.context.limits.commands_burst
        if excess <= 0 or self._paused or self.state > State.OPEN:
            return
        self._paused = True
        self._watch(READ if self._waiting is None else READ | WRITE)
        self.context.hits.add("limits.commands", self.address)
        self.context.deadlines.add(self, self._pause_end())

    def _charge_records(self) -> None:
        """Charge TLS records that brought little or no data, and close a connection that sends many without any."""
        if not isinstance(self._socket, TLSSocket):
            return
        if self._socket.empty_records > MAX_EMPTY_RECORDS:
            self.context.hits.add("ssl.records", self.address)
            self.abort("it sent TLS records without data")
        elif cost := self._socket.take_cost():
            self.charge(cost)

    def _pause_end(self) -> float:
        """When as much has been given back as was too much."""
        limits = self.context.limits
        return self._heard + (self._spent - limits.commands_burst) / limits.commands

    def _give_back(self, now: float) -> None:
        earned = math.ceil((now - self._heard) * self.context.limits.commands)
        self._spent = max(0, self._spent - earned)
