"""PROXY protocol headers as load balancers send them."""

import socket
import struct

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(
    source: str | None,
    *,
    command: int = 1,
    family: int | None = None,
    content: bytes | None = None,
    tlvs: bytes = b"",
    source_port: int = 4711,
    destination: str | None = None,
    destination_port: int = 443,
) -> bytes:
    """A header of version 2."""
    kind = socket.AF_INET6 if source and ":" in source else socket.AF_INET
    if content is None:
        content = b""
        if source is not None:
            target = destination or ("::1" if kind == socket.AF_INET6 else "127.0.0.1")
            content = socket.inet_pton(kind, source) + socket.inet_pton(kind, target)
            content += struct.pack(">HH", source_port, destination_port)
    if family is None:
        family = 0x21 if kind == socket.AF_INET6 else 0x11
    content += tlvs
    return SIGNATURE + struct.pack(">BBH", 0x20 | command, family, len(content)) + content
