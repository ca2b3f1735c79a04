"""Frames of a client and of a server, without code of the server."""

KEY = b"\x12\x34\x56\x78"

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def masked(payload: bytes, key: bytes = KEY) -> bytes:
    """The payload under a masking key (RFC 6455, 5.3)."""
    return bytes(byte ^ key[position % 4] for position, byte in enumerate(payload))


def frame(
    payload: bytes = b"",
    opcode: int = TEXT,
    *,
    final: bool = True,
    key: bytes | None = KEY,
    reserved: int = 0,
    form: int | None = None,
) -> bytes:
    """A frame. With `key` None it is not masked; `form` is the size of the extended length: 0, 2 or 8 bytes."""
    size = len(payload)
    if form is None:
        form = 0 if size < 126 else 2 if size < 65536 else 8
    marker = size if form == 0 else {2: 126, 8: 127}[form]
    first = (0x80 if final else 0) | reserved << 4 | opcode
    length = size.to_bytes(form, "big") if form else b""
    head = bytes((first, (0 if key is None else 0x80) | marker)) + length
    return head + payload if key is None else head + key + masked(payload, key)


def text(content: str) -> bytes:
    """A whole text message in one frame."""
    return frame(content.encode())


def take_frame(data: bytearray) -> tuple[int, bytes] | None:
    """Remove the first frame, which is not masked, once it is complete; return its opcode and payload."""
    if len(data) < 2:
        return None
    size, head = data[1] & 0x7F, 2
    if size >= 126:
        head = 4 if size == 126 else 10
        size = int.from_bytes(data[2:head], "big")
    if len(data) < head + size:
        return None
    payload = bytes(data[head : head + size])
    opcode = data[0] & 0x0F
    del data[: head + size]
    return opcode, payload
