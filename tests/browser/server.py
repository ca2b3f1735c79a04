"""Servers for the tests in browsers."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.installation import Installation
from tests.support.waiting import wait_until


class Servers:
    """Servers that several tests use in turn: starting one takes longer than most of the tests."""

    def __init__(self, new_folder: Callable[[], Path]) -> None:
        self._new_folder = new_folder
        self._idle: dict[str, list[Installation]] = {}

    @contextmanager
    def lend(self, client: Mapping[str, object] = {}, **settings: object) -> Iterator[Installation]:
        """A server without clients, while the block lasts. Its totals and its history may not be empty."""
        idle = self._idle.setdefault(json.dumps([client, settings]), [])
        server = self._unused(idle) or self._start(client, settings)
        try:
            yield server
        except BaseException:
            server.end()
            raise
        if server.answers() is not None:
            idle.append(server)

    def _start(self, client: Mapping[str, object], settings: Mapping[str, object]) -> Installation:
        server = Installation(self._new_folder(), client=client, **settings)
        server.start()
        return server

    def _unused(self, idle: list[Installation]) -> Installation | None:
        """A server that the clients of the last test have left."""
        while idle:
            server = idle.pop()
            with suppress(AssertionError):
                wait_until(lambda server=server: not server.connections, "the last clients to leave", 2)  # type: ignore[misc]
                return server
            server.end()
        return None

    def close(self) -> None:
        """Stop them."""
        for server in [each for idle in self._idle.values() for each in idle]:
            server.end()
