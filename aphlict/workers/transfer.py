"""A history on its way to the other end of a stream: in steps, as fast as that takes it."""

import asyncio
from collections.abc import Callable

from aphlict.history import Archive, Entry
from aphlict.workers.records import History, Packed, encode, pack

STEP = 256 * 1024  # about how many bytes are written in one turn of the loop
ENTRY_COST = 64  # bytes that looking at one more entry counts for


class Transfer:
    """Writes to a transport what an archive keeps, in the order in which it was kept.

    `is_wanted` chooses the entries. What is published meanwhile goes along: nothing waits elsewhere, and what is
    dropped before its turn is left out. Once all is written `on_done` is called, in the same turn, to write the
    last History: nothing falls between the two. `pause` and `resume` are for the transport's flow control.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        archive: Archive,
        is_wanted: Callable[[Entry], bool],
        on_done: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._archive = archive
        self._is_wanted = is_wanted
        self._on_done = on_done
        self._sequence = 0  # of the last entry that was looked at
        self._is_paused = False
        self._is_over = False
        self._next: asyncio.Handle | None = None

    def start(self) -> None:
        """Begin, in the running loop."""
        self._schedule()

    def pause(self) -> None:
        """Write nothing for now."""
        self._is_paused = True

    def resume(self) -> None:
        """Go on."""
        self._is_paused = False
        self._schedule()

    def _schedule(self) -> None:
        if self._next is None and not self._is_over:
            self._next = asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        """Take one step, unless the transport has been closed or takes no more."""
        self._next = None
        if self._is_paused or self._transport.is_closing():
            return
        messages = self._take()
        if messages:
            self._transport.write(encode(History(messages)))
        if self._sequence == self._archive.sequence:
            self._is_over = True
            self._on_done()
        elif not self._is_paused:  # `write` may have called `pause`
            self._schedule()

    def _take(self) -> list[Packed]:
        """The messages of the next step."""
        messages: list[Packed] = []
        size = 0
        for entry in self._archive.entries(self._sequence):
            self._sequence = entry.sequence
            size += ENTRY_COST
            if self._is_wanted(entry):
                messages.append(pack(entry.message, entry.at))
                size += entry.message.size
            if size >= STEP:
                return messages
        self._sequence = self._archive.sequence
        return messages
