"""The query of an event stream or a poll, without a socket."""

import pytest

from aphlict.protocol.http import Request
from aphlict.server.subscribe_request import parse_subscribe_request

MANY = [f"m{number}" for number in range(40)]


@pytest.mark.parametrize(
    ("query", "header", "after"),
    [
        ("", "", ()),
        ("&after=a&after=b", "", ("a", "b")),
        ("&after=a,b", "", ("a", "b", "a,b")),
        ("&after=a&after=b", "b,c", ("a", "b", "c", "b,c")),
        ("&after=,,a", "", ("a", ",,a")),
        ("".join(f"&after={name}" for name in MANY), "", tuple(MANY[-16:])),
        ("".join(f"&after={name}" for name in MANY), "last", (*MANY[-15:], "last")),
        ("&after=" + ",".join(MANY), "", (*MANY[-16:], ",".join(MANY))),
        ("".join(f"&after={name},x" for name in MANY), "", None),
    ],
)
def test_only_the_last_16_names_count(query: str, header: str, after: tuple[str, ...] | None) -> None:
    headers = {"last-event-id": header} if header else {}
    parsed = parse_subscribe_request(Request("GET", f"/poll?channel=a{query}", 1, headers))
    if after is None:
        assert len(parsed.after) == 32
    else:
        assert parsed.after == after
