"""Random `Origin`, `Host` and similar fields: parsed as other parsers do, or refused."""

from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from hypothesis import example, given
from hypothesis import strategies as st

from aphlict.config.origins import Origins
from aphlict.config.settings import ServerSettings
from aphlict.errors import CrossSiteRequest, HostNotAllowed, Unauthorized
from aphlict.server.access import PRIVATE_DOMAINS, AdminAccess, HostNames, host_of

HEADER = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF))
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


@given(HEADER | st.lists(PIECES, max_size=6).map("".join))
def test_an_accepted_host_cannot_be_an_attackers(header: str) -> None:
    server = ServerSettings(type="admin", port=1)
    access = AdminAccess(server, HostNames(server, ["web1.example.com"]))
    try:
        access.check({"host": header}, lambda: "127.0.0.1")
    except HostNotAllowed:
        return
    host = (urlsplit(f"http://{header}").hostname or "").rstrip(".")
    if (
        "." in host
        and host != "web1.example.com"
        and not host.endswith(tuple(f".{each}" for each in PRIVATE_DOMAINS))
    ):
        ip_address(host)


@given(HEADER | st.lists(PIECES, max_size=6).map("".join))
@example("example.com@evil.example")
@example("evil.example:443.example.com")
def test_a_host_of_an_origin_is_parsed_alike_by_urllib(header: str) -> None:
    host = host_of(header)
    if host is not None and Origins(["*.example.com", "https://example.com"]).names(host):
        parts = urlsplit(f"http://{header}")
        name = (parts.hostname or "").rstrip(".")
        assert parts.username is None
        assert name == "example.com" or name.endswith(".example.com")


@given(st.dictionaries(st.sampled_from(["host", "origin", "sec-fetch-site", "authorization"]), HEADER))
def test_random_fields_raise_rejections_only(headers: dict[str, str]) -> None:
    server = ServerSettings(type="admin", port=1, admin_secret="a-secret-of-many-letters")
    access = AdminAccess(server, HostNames(server, []))
    with suppress(CrossSiteRequest, HostNotAllowed, Unauthorized):
        access.check(headers, lambda: "127.0.0.1")
        raise AssertionError("accepted without the secret")


@given(HEADER, st.sampled_from(["basic", "Basic ", "bearer"]))
@example("Og==", "basic")  # ":"
def test_random_credentials_are_refused(text: str, scheme: str) -> None:
    server = ServerSettings(type="admin", port=1, admin_secret="a-secret-of-many-letters")
    access = AdminAccess(server, HostNames(server, []))
    with suppress(Unauthorized):
        access.check({"authorization": f"{scheme} {text}"}, lambda: "127.0.0.1")
        raise AssertionError("accepted without the secret")


AUTHORITY = st.lists(PIECES | st.sampled_from(["localhost", "web1.example.com", ":1"]), max_size=4).map(
    "".join
)


@given(st.sampled_from(["http://", "https://", "HTTP://", "", "ws://"]), AUTHORITY, AUTHORITY | st.none())
@example("http://", "localhost:1", None)
def test_an_accepted_page_is_one_of_this_server(scheme: str, origin: str, host: str | None) -> None:
    host = origin if host is None else host
    server = ServerSettings(type="admin", port=1, listen="0.0.0.0")
    access = AdminAccess(server, HostNames(server, ["web1.example.com"]))
    try:
        access.check({"origin": scheme + origin, "host": host}, lambda: "10.0.0.5")
    except (CrossSiteRequest, HostNotAllowed):
        return
    page = urlsplit(scheme + origin)
    default = {"http": ":80", "https": ":443"}[page.scheme]
    assert page.netloc.casefold() == host.casefold().removesuffix(default)
    assert (page.path, page.query, page.fragment, page.username) == ("", "", "", None)
    name = (page.hostname or "").rstrip(".")
    if name not in ("localhost", "web1.example.com", "0.0.0.0"):
        ip_address(name)
