"""Waiting for a condition with a deadline, never by sleeping a fixed time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

STEP = 0.01


def wait_until(condition: Callable[[], T], what: str = "", timeout: float = 10) -> T:
    """Return the first true value of condition(); fail after timeout seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout} s in vain for {what or condition}"
        time.sleep(STEP)
    return value


async def eventually(condition: Callable[[], T], what: str = "", timeout: float = 10) -> T:
    """The same inside a running loop."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout} s in vain for {what or condition}"
        await asyncio.sleep(STEP)
    return value


async def eventually_async(condition: Callable[[], Awaitable[T]], what: str = "", timeout: float = 10) -> T:
    """The same for a condition that has to be awaited."""
    deadline = time.monotonic() + timeout
    while not (value := await condition()):
        assert time.monotonic() < deadline, f"waited {timeout} s in vain for {what or condition}"
        await asyncio.sleep(STEP)
    return value
