"""Parsing time is proportional to the length of the data, also for hostile data."""

import time
from contextlib import suppress

import pytest

from aphlict.errors import BadRequest
from aphlict.protocol.http import parse_request
from tests.support.memory import without_collector

LIMIT = 8192
LONGEST = 0.05  # seconds

HEADS = {
    "spaces before a character that cannot be": b"a:" + b" " * 8000 + b"\x01",
    "tabs and spaces around nothing": b"a:" + b" \t" * 4000,
    "spaces inside a value": b"a:" + b"x " * 4000,
    "very many headers": b"\r\n".join([b"a:"] * 1900),
    "one name without a colon": b"a" * 8000,
}


@pytest.mark.parametrize("lines", HEADS.values(), ids=HEADS.keys())
def test_a_head(lines: bytes) -> None:
    with without_collector(), suppress(BadRequest):
        began = time.process_time()
        parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n\r\n", LIMIT)
    assert time.process_time() - began < LONGEST
