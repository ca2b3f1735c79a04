"""Waiting for a condition, with a deadline."""

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
        assert time.monotonic() < deadline, f"no {what or condition} within {timeout} s"
        time.sleep(STEP)
    return value


async def eventually(condition: Callable[[], T], what: str = "", timeout: float = 10) -> T:
    """Do the same in a coroutine."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what or condition} within {timeout} s"
        await asyncio.sleep(STEP)
    return value


async def eventually_async(condition: Callable[[], Awaitable[T]], what: str = "", timeout: float = 10) -> T:
    """Do the same with a condition that is a coroutine."""
    deadline = time.monotonic() + timeout
    while not (value := await condition()):
        assert time.monotonic() < deadline, f"no {what or condition} within {timeout} s"
        await asyncio.sleep(STEP)
    return value
