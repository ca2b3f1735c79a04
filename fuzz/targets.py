"""Fuzz targets: functions that accept any bytes and raise only if the code under test has a bug."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

from aphlict.config.loader import load as load_configuration
from aphlict.config.settings import Limits
from aphlict.core.message import Message, decode_body, parse_body, parse_message
from aphlict.core.resume_token import ResumeToken
from aphlict.errors import (
    BadProxyHeader,
    BadRequest,
    BodyTooLarge,
    CommandError,
    ConfigError,
    InvalidMessage,
    InvalidToken,
    ProtocolError,
)
from aphlict.protocol import commands, http, proxy_protocol
from aphlict.protocol.body import MAX_TRAILERS, ChunkedParser
from aphlict.protocol.websocket import (
    CLOSE,
    PARSER_BYTES,
    FrameParser,
    WSMessage,
    decode_close,
    decode_short_text,
)
from aphlict.server.subscribe_request import MAX_WAIT, parse_subscribe_request
from aphlict.server.write_buffer import BufferBudget, WriteBuffer
from aphlict.tokens.grant import MAX_LIFETIME, sign_token
from aphlict.tokens.key_set import LEEWAY, KeySet
from aphlict.tokens.keys import UnusableKey, parse_keys

LIMIT = 4096
MAX_EXTRA = 125 + 14  # bytes of a control frame and of a header, which may be kept in addition to a message


def fuzz_frames(data: bytes) -> None:
    """A stream of frames is parsed alike in one piece, in two, byte by byte, buffered, and by decode_short_text."""
    whole = _read_frames([data])
    middle = len(data) // 2
    assert _read_frames([data[:middle], data[middle:]]) == whole
    assert _read_frames([data[i : i + 1] for i in range(len(data))]) == whole
    assert _read_frames([data[:middle], b""], kept=data[middle:]) == whole
    try:
        single = decode_short_text(data, LIMIT)
    except ProtocolError:
        assert whole[1]
        return
    assert single is None or whole == ([single], False)


def _read_frames(pieces: list[bytes], kept: bytes = b"") -> tuple[list[WSMessage], bool]:
    """Return the messages, and whether the rest was rejected. `kept` is buffered before the last piece."""
    reader, received = FrameParser(LIMIT), list[WSMessage]()
    try:
        for place, piece in enumerate(pieces):
            assert reader.size <= PARSER_BYTES + LIMIT + MAX_EXTRA
            if place == len(pieces) - 1:
                reader.keep(kept)
            for each in reader.feed(piece):
                if each.opcode == CLOSE:
                    assert isinstance(each.data, bytes)
                    decode_close(each.data)
                received.append(each)
    except ProtocolError:
        return received, True
    return received, False


def fuzz_head(data: bytes) -> None:
    """A head is parsed or rejected alike in any split, and a valid one can be answered."""
    try:
        found = http.parse_request(data, LIMIT)
    except BadRequest:
        _check_prefixes(data)
        return
    if found is None:
        return
    request, size = found
    _check_prefixes(data[: size - 1])
    assert request.body_size is None or request.body_size in range(10**18)
    for result in (lambda: http.accept_response(request), lambda: http.instance_from_path(request.path)):
        try:
            assert result()
        except BadRequest as error:
            http.error_response(error)


def _check_prefixes(data: bytes) -> None:
    """No prefix of a head is a complete one."""
    for size in range(0, len(data), 7):
        try:
            assert http.parse_request(data[:size], LIMIT) is None
        except BadRequest:
            return


def fuzz_chunks(data: bytes) -> None:
    """A chunked body is parsed alike in one piece, in two, and byte by byte."""
    whole = _read_chunks([data])
    middle = len(data) // 2
    assert _read_chunks([data[:middle], data[middle:]]) == whole
    assert _read_chunks([data[i : i + 1] for i in range(len(data))]) == whole


def _read_chunks(pieces: list[bytes]) -> tuple[bytes, int] | type[Exception] | None:
    """Return the body and the number of bytes after it, the type of the error, or None if incomplete."""
    reader = ChunkedParser(LIMIT)
    for place, piece in enumerate(pieces):
        try:
            rest = reader.feed(piece)
        except (BadRequest, BodyTooLarge) as error:
            return type(error)
        assert reader.size <= LIMIT + MAX_TRAILERS
        if rest is not None:
            return reader.body(), len(rest) + sum(map(len, pieces[place + 1 :]))
    return None


def fuzz_write_buffer(data: bytes) -> None:
    """Buffered data of slow connections is sent in order or dropped, and is counted until then.

    Each step is three bytes: a connection, an operation, and a size.
    """
    pool = BufferBudget(Limits(send_buffer_total=20_000, send_buffer_address=9000))
    slow = [Slow(pool, number % 3) for number in range(5)]
    shared = [bytes([number]) * (number * number) for number in range(100)]
    for index, operation, size in zip(data[::3], data[1::3], data[2::3], strict=False):
        slow[index % len(slow)].do(operation, size, shared)
        held = [pool.held(each) for each in slow]
        assert min(held) >= 0
        assert sum(map(bool, held)) == len(pool.accounts)
        assert pool.used >= sum(each.incoming for each in slow)
    for each in slow:
        each.close_over_limit("")
    assert (pool.used, pool.accounts) == (0, {})


class Slow:
    """A connection with a write buffer and what it has yet to send."""

    def __init__(self, pool: BufferBudget, limit_key: int) -> None:
        self.limit_key = limit_key
        self.incoming = 0
        self._pool = pool
        self._buffer = WriteBuffer(pool, self)
        self._expected = b""

    def do(self, operation: int, size: int, shared: list[bytes]) -> None:
        """Add a shared frame, an own frame or a replay; send; receive; or make room."""
        match operation % 6:
            case 0:
                self._add(shared[size % len(shared)])
            case 1:
                self._add(bytes([size]) * size * 20)
            case 2:
                self._buffer.add(iter(shared[:size]))
                self._expected += b"".join(shared[:size])
            case 3:
                self._send(size * 50)
            case 4:
                self.incoming = size
                self._pool.receive(self, size)
            case _:
                self._make_room()

    def _add(self, frame: bytes) -> None:
        self._buffer.add(frame)
        self._expected += frame

    def _send(self, size: int) -> None:
        chunk = bytes(self._buffer.peek()[:size])
        assert self._expected.startswith(chunk)
        self._expected = self._expected[len(chunk) :]
        self._buffer.advance(len(chunk))

    def _make_room(self) -> None:
        limit = self._pool.make_room(self)
        if limit is not None:
            self.close_over_limit(limit)

    def close_over_limit(self, _limit: str, /) -> None:
        """Part of the budget's Holder."""
        self._buffer.clear()
        self._buffer = WriteBuffer(self._pool, self)
        self._expected, self.incoming = b"", 0
        self._pool.receive(self, 0)
        assert self not in self._pool.accounts


def fuzz_command(data: bytes) -> None:
    """A text is a command or is answered with an error; the number of names is bounded by what is charged."""
    text = data.decode(errors="replace")
    try:
        command, id = commands.parse_command(text)
        assert commands.ack(id)
        if isinstance(command, commands.Subscribe | commands.Unsubscribe):
            assert len(command.channels) <= len(data)
        if isinstance(command, commands.Replay):
            assert len(command.after or ()) <= commands.MAX_AFTER
    except CommandError as error:
        commands.error_reply(error.id, error)


def fuzz_query(data: bytes) -> None:
    """The target of a poll is parsed or rejected; its channels are not empty, and `after` is bounded."""
    request = http.Request("GET", "/~a/poll?" + data.decode("latin-1"), 1, {"last-event-id": "x,y"})
    try:
        parsed = parse_subscribe_request(request)
    except BadRequest:
        return
    assert 0 < len(parsed.channels) <= len(data)
    assert len(parsed.after) <= 2 * commands.MAX_AFTER
    assert 0 <= parsed.wait <= MAX_WAIT


def fuzz_instance(data: bytes) -> None:
    """A path has an instance or is rejected; `instance_path` of the instance has the same one."""
    try:
        name = http.instance_from_path(data.decode("latin-1"))
    except BadRequest:
        return
    assert http.instance_from_path(f"/ws/{http.instance_path(name)}") == name


def fuzz_body(data: bytes) -> None:
    """A published body is rejected, or has messages that a peer parses alike."""
    try:
        messages, _ = parse_body(data, "default", lambda: "new")
    except InvalidMessage:
        _parse_from_node(data)
        return
    for number, message in enumerate(messages, 1):
        (again,), _ = parse_body(message.json_for_peer(message.touched), "default")
        assert _essence(again) == _essence(message)
        message.origin, message.number = "anorigin", number
        (numbered,) = _parse_from_node(message.json_for_peer(message.touched, with_origin=True))
        assert _essence(numbered) == _essence(message)
        assert message.delivery(message.channels).ws_frame.endswith(message.json_for(message.channels))


def _parse_from_node(data: bytes) -> list[Message]:
    """Parse a body of another node; return no messages if it is rejected."""
    try:
        objects, _ = decode_body(data, "default", Limits())
        messages = [parse_message(fields, "default", lambda: "new", from_node=True) for fields in objects]
    except InvalidMessage:
        return []
    assert all(each.number > 0 if each.origin else each.number == 0 for each in messages)
    return messages


def _essence(message: Message) -> tuple[object, ...]:
    name = message.unique_id, message.origin, message.number
    return *name, message.channels, message.touched, message.json_for(())


def fuzz_proxy(data: bytes) -> None:
    """A PROXY header is parsed or rejected, and no prefix of one is a complete one."""
    try:
        found = proxy_protocol.parse_header(data)
    except BadProxyHeader:
        return
    if found is not None:
        assert 8 <= found.size <= len(data)
        assert proxy_protocol.parse_header(data[: found.size]) == found
    assert all(
        proxy_protocol.parse_header(data[:size]) is None for size in range(found.size if found else len(data))
    )


def fuzz_resume_token(data: bytes) -> None:
    """A text is decoded as a resume token, or is none; a token survives encoding."""
    token = ResumeToken.decode(data.decode(errors="replace"))
    if token is not None:
        assert ResumeToken.decode(token.encode()) == token


def fuzz_configuration(data: bytes) -> None:
    """A configuration is loaded, or rejected with a sentence."""
    path = _folder() / "aphlict.json"
    path.write_bytes(data)
    try:
        load_configuration(path, files=False)
    except ConfigError as error:
        str(error).encode()


def fuzz_token(data: bytes) -> None:
    """Any text is rejected as a token; signed as claims it may be accepted."""
    [key] = parse_keys(b"a secret that is known to the fuzzer only", "")
    keys = KeySet([key])
    for text in (data.decode("latin-1"), sign_token(key, data)):
        try:
            grant = keys.verify(text, 1e9, lambda _cost: None)
        except InvalidToken as error:
            str(error).encode()
        else:
            assert text == sign_token(key, data)
            assert 1e9 < grant.expires <= 1e9 + MAX_LIFETIME + LEEWAY


def fuzz_keys(data: bytes) -> None:
    """The content of a key file is rejected with a sentence, or is a list of usable keys."""
    try:
        keys = parse_keys(data, "name")
    except UnusableKey as error:
        str(error).encode()
        return
    assert keys
    assert all(key.cost and key.thumbprint for key in keys)


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="aphlict-fuzz-"))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "body": fuzz_body,
    "chunks": fuzz_chunks,
    "command": fuzz_command,
    "configuration": fuzz_configuration,
    "frames": fuzz_frames,
    "head": fuzz_head,
    "instance": fuzz_instance,
    "keys": fuzz_keys,
    "proxy": fuzz_proxy,
    "query": fuzz_query,
    "resume_token": fuzz_resume_token,
    "token": fuzz_token,
    "write_buffer": fuzz_write_buffer,
}
