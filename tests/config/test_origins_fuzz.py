"""Random values of `Origin`: parsed as other parsers do, or refused."""

from urllib.parse import urlsplit

from hypothesis import example, given
from hypothesis import strategies as st

from aphlict.config.origins import Origins

HEADER = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF))
SCHEMES = st.sampled_from(["https://", "http://", "HTTPS://", "//", "", "https:/", "javascript:"])
PIECES = st.sampled_from(
    [
        *".:/@#?\\[]%,",
        "example.com",
        "evil.example",
        ".example.com",
        "a",
        "xn--a",
        "443",
        "127.0.0.1",
        "::1",
        " ",
    ]
)
MADE_UP = st.builds("{}{}".format, SCHEMES, st.lists(PIECES, max_size=6).map("".join))


@given(HEADER | MADE_UP)
@example("https://evil.example\\.example.com")
@example("https://evil.example#.example.com")
def test_an_accepted_origin_is_parsed_alike_by_urllib(header: str) -> None:
    if Origins(["*.example.com", "https://example.com"]).allows(header):
        parts = urlsplit(header)
        assert (parts.scheme, parts.port or 443, parts.username) == ("https", 443, None)
        assert (parts.path, parts.query, parts.fragment) == ("", "", "")
        host = parts.hostname or ""
        assert host == "example.com" or host.endswith(".example.com")
