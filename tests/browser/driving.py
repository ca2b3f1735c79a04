"""The interface to a browser, Chromium or Firefox."""

import itertools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from websockets.sync.client import connect

ANSWER_TIME = 30


class PageError(Exception):
    """An evaluated expression threw, or a command of the browser failed."""


class Remote:
    """A debugging connection. Commands run one at a time; events are kept."""

    def __init__(self, address: str) -> None:
        self._open = ExitStack()
        # It is open as long as the browser, also during other tests. Its pings would use the global `random` in a
        # thread, which Hypothesis reports as an error in property tests.
        connecting = connect(address, max_size=None, compression=None, proxy=None, ping_interval=None)
        self._connection = self._open.enter_context(connecting)
        self._ids = itertools.count(1)
        self._events: list[dict[str, Any]] = []

    def post(self, method: str, params: Mapping[str, object], **more: object) -> int:
        """Send a command without waiting for its result; return its ID."""
        id = next(self._ids)
        self._connection.send(json.dumps({"id": id, "method": method, "params": params, **more}))
        return id

    def command(self, method: str, params: Mapping[str, object], **more: object) -> dict[str, Any]:
        """Run a command and return its result."""
        id = self.post(method, params, **more)
        while True:
            answer: dict[str, Any] = json.loads(self._connection.recv(timeout=ANSWER_TIME))
            if answer.get("id") != id:
                self._events.append(answer)
            elif "error" in answer:
                raise PageError(f"{method}: {answer['error']} {answer.get('message', '')}")
            else:
                result: dict[str, Any] = answer["result"]
                return result

    def events(self, method: str) -> Iterator[dict[str, Any]]:
        """The events of this name so far."""
        return (event for event in self._events if event.get("method") == method)

    def close(self) -> None:
        """Close the connection."""
        self._open.close()


class Tab(ABC):
    """A tab."""

    @abstractmethod
    def open(self, url: str) -> None:
        """Load a page and wait until its scripts have run."""

    @abstractmethod
    def resize(self, width: int, height: int) -> None:
        """Set the size of the page, in CSS pixels."""

    @abstractmethod
    def show(self) -> None:
        """Bring the tab to the front: the page that was there is hidden."""

    @abstractmethod
    def before_pages(self, function: str) -> None:
        """Call a function in each page that this tab loads from now on, before the scripts of the page."""

    @abstractmethod
    def _evaluate(self, expression: str) -> Any:
        """Evaluate an expression that returns a string, or a promise of one. Raises PageError if it throws."""

    @abstractmethod
    def close(self) -> None:
        """Close the tab as a user does."""

    def evaluate(self, expression: str, *values: object) -> Any:
        """Evaluate an expression, or call a function with values, and await the result."""
        if values:
            expression = f"({expression})({', '.join(json.dumps(value) for value in values)})"
        text = self._evaluate(f"(async () => JSON.stringify(await ({expression})) ?? 'null')()")
        return json.loads(text)


class Profile(ABC):
    """Tabs that share storage, locks and channels with each other only."""

    @abstractmethod
    def new_tab(self, url: str) -> Tab:
        """Open a page in a new tab."""

    @abstractmethod
    def close(self) -> None:
        """Close its tabs and delete it."""


class Browser(ABC):
    """A running browser."""

    @abstractmethod
    def new_profile(self) -> Profile:
        """A fresh profile."""

    @abstractmethod
    def close(self) -> None:
        """Terminate all its processes."""


def find_address(text: str, pattern: str) -> str | None:
    """Return the first group of a pattern in a log."""
    found = re.search(pattern, text)
    return found.group(1) if found else None
