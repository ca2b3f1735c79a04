"""Any text is a valid URL, or a usage error that does not show its token."""

from hypothesis import given
from hypothesis import strategies as st

from aphlict.doctor.target import Target, parse_url
from aphlict.errors import UsageError

PARTS = [*"[]:/~?&#@% \t", "ws://", "wss://", "http://", "::1", "a", "b.c", "..", "0", "80", "99999"]
PARTS += ["%ff", "%7E", "ü", "中", "\ud800", "x=1"]
URLS = st.lists(st.sampled_from(PARTS), max_size=12).map("".join)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)


def read(url: str) -> Target | str:
    """Return the target, or the sentence of the error."""
    try:
        return parse_url(url)
    except UsageError as error:
        return str(error)


@given(st.one_of(URLS, ANY_TEXT, ANY_TEXT.map("ws://".__add__)))
def test_any_text(text: str) -> None:
    secret = "a-token-that-is-nowhere-else"
    for url in (text, f"{text}?token={secret}"):
        found = read(url)
        if isinstance(found, str):
            assert found.startswith("--url is ")
            assert secret not in found
        else:
            assert found.url.isprintable()
            assert 1 <= found.port <= 65535
            assert found.host.isascii()
            assert found.path.isascii()
