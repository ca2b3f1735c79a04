"""Each rule for request heads of RFC 6455, section 4.2, and RFC 9112; the handshake and error responses."""

import json

import pytest

from aphlict.errors import (
    AphlictError,
    BadRequest,
    BodyTooLarge,
    HeadTooLarge,
    Overloaded,
    TokenMissing,
    UnsupportedVersion,
)
from aphlict.protocol import http
from aphlict.protocol.http import (
    MAX_QUERY_FIELDS,
    Request,
    accept_response,
    instance_from_path,
    parse_query,
    parse_request,
)
from tests.support.heads import BROWSER, MALFORMED, Malformed, head

LIMIT = 8192


def read(data: bytes) -> Request:
    """Parse data that is exactly one head."""
    found = parse_request(data, LIMIT)
    assert found is not None
    request, size = found
    assert size == len(data)
    return request


def read_by_bytes(data: bytes) -> None:
    """Parse invalid data that arrives byte by byte."""
    for size in range(len(data) + 1):
        assert parse_request(data[:size], LIMIT) is None


def refusal(data: bytes) -> AphlictError:
    """The error of an invalid handshake."""
    with pytest.raises(BadRequest) as caught:
        accept_response(read(data))
    return caught.value


# Parsing a head


def test_a_head() -> None:
    request = read(b"GET /ws/?a=b HTTP/1.1\r\nHost: x\r\nX-Y:  a b \t\r\nEmpty:\r\n\r\n")
    assert (request.method, request.target, request.path, request.minor) == ("GET", "/ws/?a=b", "/ws/", 1)
    assert request.headers == {"host": "x", "x-y": "a b", "empty": ""}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("http://x/ws/?a=http://y/", "/ws/?a=http://y/"),
        ("HTTPS://x:443/", "/"),
        ("http://x", "/"),
        ("http://x?a=b", "/?a=b"),
        ("/http://x/", "/http://x/"),
        ("*", "*"),
        ("ftp://x/", "ftp://x/"),
    ],
)
def test_a_target_may_be_a_complete_url(target: str, expected: str) -> None:
    assert read(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).target == expected


def test_field_names_are_case_insensitive() -> None:
    assert read(b"GET / HTTP/1.1\r\nHOST: x\r\n\r\n").headers == {"host": "x"}


def test_repeated_headers_are_joined() -> None:
    assert read(b"GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\na: 2\r\n\r\n").headers["a"] == "1, 2"


def test_http_1_0_needs_no_host() -> None:
    assert read(b"GET / HTTP/1.0\r\n\r\n") == Request("GET", "/", 0, {})


def test_bytes_beyond_ascii_are_kept() -> None:
    request = read("GET /ü HTTP/1.1\r\nHost: x\r\nA: ü\r\n\r\n".encode())
    assert request.target.encode("latin-1").decode() == "/ü"
    assert request.headers["a"].encode("latin-1").decode() == "ü"


def test_data_after_the_head_is_not_consumed() -> None:
    data = head()
    assert parse_request(data + b"\x81\x80", LIMIT) == (read(data), len(data))


def test_an_incomplete_head_is_awaited() -> None:
    data = head()
    assert all(parse_request(data[:size], LIMIT) is None for size in range(len(data)))


def test_a_head_may_be_as_large_as_the_limit() -> None:
    data = head()
    assert parse_request(data, len(data) - 4) is not None
    with pytest.raises(HeadTooLarge):
        parse_request(data, len(data) - 5)


def test_an_endless_head_is_rejected_at_the_limit() -> None:
    with pytest.raises(HeadTooLarge) as caught:
        parse_request(b"GET / HTTP/1.1\r\nX: " + b"x" * LIMIT, LIMIT)
    assert caught.value.http_status == 431


@pytest.mark.parametrize("malformed", MALFORMED, ids=str)
def test_a_malformed_head_is_rejected(malformed: Malformed) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_request(malformed.data, LIMIT)
    assert caught.value.http_status == malformed.status


@pytest.mark.parametrize("malformed", MALFORMED, ids=str)
def test_a_malformed_head_is_never_accepted_a_byte_at_a_time(malformed: Malformed) -> None:
    with pytest.raises(BadRequest):
        read_by_bytes(malformed.data)


def test_content_length_or_chunked_alone_is_valid() -> None:
    assert read(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n").headers["content-length"] == "2"
    assert read(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n").method == "POST"


# The handshake (4.2.1, 4.2.2)


def test_the_handshake_of_the_rfc() -> None:
    answer = accept_response(read(head()))
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nUpgrade: websocket\r\n" in answer
    assert b"\r\nConnection: Upgrade\r\n" in answer
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("offer", ["aphlict", "aphlict, token.a.b.c", "chat,aphlict", "token.x, aphlict"])
def test_the_subprotocol_is_selected(offer: str) -> None:
    answer = accept_response(read(head(sec_websocket_protocol=offer)))
    assert b"\r\nSec-WebSocket-Protocol: aphlict\r\n" in answer


@pytest.mark.parametrize("offer", ["", "chat", "Aphlict", "aphlict2", "token.aphlict"])
def test_another_subprotocol_is_not_selected(offer: str) -> None:
    assert b"Sec-WebSocket-Protocol" not in accept_response(read(head(sec_websocket_protocol=offer)))


@pytest.mark.parametrize(
    ("start", "headers", "token"),
    [
        ("GET / HTTP/1.1", {}, None),
        ("GET /?token=a.b.c HTTP/1.1", {}, "a.b.c"),
        ("GET /?x=1&token=a%2Eb.c&y HTTP/1.1", {}, "a.b.c"),
        ("GET /?atoken=x HTTP/1.1", {}, None),
        ("GET /?token= HTTP/1.1", {}, ""),
        ("GET /~token=x HTTP/1.1", {}, None),
        ("GET / HTTP/1.1", {"authorization": "Bearer a.b.c"}, "a.b.c"),
        ("GET / HTTP/1.1", {"authorization": "bearer  a.b.c "}, "a.b.c"),
        ("GET / HTTP/1.1", {"authorization": "Basic eDp5"}, None),
        ("GET / HTTP/1.1", {"authorization": "Bearer"}, ""),
        ("GET / HTTP/1.1", {"sec_websocket_protocol": "aphlict, token.a.b.c"}, "a.b.c"),
        ("GET / HTTP/1.1", {"sec_websocket_protocol": "aphlict"}, None),
        ("GET /?token=q HTTP/1.1", {"sec_websocket_protocol": "token.p", "authorization": "Bearer b"}, "b"),
        ("GET /?token=q HTTP/1.1", {"sec_websocket_protocol": "token.p"}, "p"),
    ],
)
def test_a_token_is_found(start: str, headers: dict[str, str], token: str | None) -> None:
    assert read(head(start, None, **headers)).token() == token


def test_a_missing_token_has_a_challenge() -> None:
    answer = http.error_response(TokenMissing("a token is asked for"))
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert answer.count(b'\r\nWWW-Authenticate: Bearer realm="aphlict"\r\n') == 1


def test_no_extension_and_no_subprotocol_is_selected() -> None:
    offer = head(Sec_WebSocket_Extensions="permessage-deflate", Sec_WebSocket_Protocol="chat")
    assert accept_response(read(offer)) == accept_response(read(head()))


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "h2c, websocket"])
def test_upgrade_is_a_list_in_any_case(upgrade: str) -> None:
    assert read(head(Upgrade=upgrade)).wants_websocket()


@pytest.mark.parametrize("upgrade", ["", "h2c", "websockets"])
def test_another_upgrade_is_ignored(upgrade: str) -> None:
    assert not read(head(Upgrade=upgrade)).wants_websocket()


def test_no_upgrade_at_all() -> None:
    assert not read(head(headers={"Host": "x"})).wants_websocket()


@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive,UPGRADE"])
def test_connection_is_a_list_in_any_case(connection: str) -> None:
    assert accept_response(read(head(Connection=connection)))


@pytest.mark.parametrize("connection", ["", "close", "upgraded"])
def test_connection_must_contain_upgrade(connection: str) -> None:
    assert "Connection" in str(refusal(head(Connection=connection)))


def test_only_get_upgrades() -> None:
    refusal(head("POST /ws/ HTTP/1.1"))


def test_only_http_1_1_upgrades() -> None:
    refusal(head("GET /ws/ HTTP/1.0"))


@pytest.mark.parametrize("size", ["5", "00005"])
def test_an_upgrade_has_no_body(size: str) -> None:
    """A proxy would read a body where the server reads frames."""
    refusal(head(Content_Length=size))


def test_an_upgrade_has_no_chunked_body() -> None:
    refusal(head(Transfer_Encoding="chunked"))


def test_a_content_length_of_zero_is_no_body() -> None:
    assert accept_response(read(head(Content_Length="0")))


@pytest.mark.parametrize("version", ["12", "8", "", "13, 8"])
def test_an_unsupported_version_is_answered_with_the_supported_one(version: str) -> None:
    error = refusal(head(Sec_WebSocket_Version=version))
    assert isinstance(error, UnsupportedVersion)
    answer = http.error_response(error)
    assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer


@pytest.mark.parametrize(
    "key", ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ==, again", "!" * 22 + "=="]
)
def test_the_key_is_16_bytes_in_base64(key: str) -> None:
    assert "Sec-WebSocket-Key" in str(refusal(head(Sec_WebSocket_Key=key)))


@pytest.mark.parametrize("missing", ["Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
def test_required_fields(missing: str) -> None:
    refusal(head(headers={name: value for name, value in BROWSER.items() if name != missing}))


# Errors


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (BadRequest("no"), b"HTTP/1.1 400 Bad Request\r\n"),
        (HeadTooLarge("no"), b"HTTP/1.1 431 Request Header Fields Too Large\r\n"),
        (BodyTooLarge("no"), b"HTTP/1.1 413 "),
        (Overloaded("no"), b"HTTP/1.1 503 Service Unavailable\r\n"),
    ],
)
def test_an_error_response_is_json(error: AphlictError, start: bytes) -> None:
    top, _, body = http.error_response(error).partition(b"\r\n\r\n")
    assert top.startswith(start)
    assert b"\r\nConnection: close" in top
    assert b"\r\nContent-Type: application/json" in top
    assert b"\r\nContent-Length: %d" % len(body) in top
    assert json.loads(body) == {"error": "no", "code": error.code}


def test_an_error_response_may_have_more_fields() -> None:
    assert b"\r\nRetry-After: 5\r\n" in http.error_response(Overloaded("no"), {"Retry-After": "5"})


# The instance in a path


@pytest.mark.parametrize(
    ("path", "instance"),
    [
        ("/", "default"),
        ("/ws/", "default"),
        ("/ws/~acme/", "acme"),
        ("/~acme", "acme"),
        ("/~acme/events", "acmeevents"),
        ("/ws/~a/c/m/e/", "acme"),
        ("/ws/~acme~more/", "acme"),
        ("/ws/~a%20b%2Fc/", "a b/c"),
        ("/ws/~gr%C3%BCn/", "grün"),
        ("/ws/~/", "default"),
        ("/ws/~", "default"),
    ],
)
def test_the_instance_in_a_path(path: str, instance: str) -> None:
    assert instance_from_path(path) == instance


def test_an_instance_that_is_not_utf8() -> None:
    with pytest.raises(BadRequest):
        instance_from_path("/~%FF/")


# Queries


def test_a_query_is_utf8_with_or_without_percent_encoding() -> None:
    raw = "ü".encode().decode("latin-1")
    assert parse_query(f"a=%C3%BC&a={raw}&b=") == {"a": ["ü", "ü"], "b": [""]}
    assert parse_query("") == {}


@pytest.mark.parametrize("query", ["a=%FF", "a=\xff", "&".join(["a=1"] * (MAX_QUERY_FIELDS + 1))])
def test_an_invalid_or_endless_query_is_rejected(query: str) -> None:
    with pytest.raises(BadRequest):
        parse_query(query)
