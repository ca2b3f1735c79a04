"""A TLS client on libssl: it can send KeyUpdate and padded records, which Python's `ssl` cannot."""

import ctypes
import socket
from ctypes import c_char_p, c_int, c_size_t, c_void_p
from typing import Any

REQUESTED = 1  # SSL_KEY_UPDATE_REQUESTED: the other side answers with one of its own


def _load() -> Any:
    """Load libssl, and with it libcrypto."""
    lib = ctypes.CDLL("libssl.so.3")
    for name, result, *arguments in (
        ("TLS_client_method", c_void_p),
        ("SSL_CTX_new", c_void_p, c_void_p),
        ("SSL_CTX_free", None, c_void_p),
        ("SSL_new", c_void_p, c_void_p),
        ("SSL_free", None, c_void_p),
        ("SSL_set_bio", None, c_void_p, c_void_p, c_void_p),
        ("SSL_set_connect_state", None, c_void_p),
        ("SSL_do_handshake", c_int, c_void_p),
        ("SSL_key_update", c_int, c_void_p, c_int),
        ("SSL_write", c_int, c_void_p, c_char_p, c_int),
        ("SSL_read", c_int, c_void_p, c_char_p, c_int),
        ("SSL_set_block_padding", c_int, c_void_p, c_size_t),
        ("BIO_s_mem", c_void_p),
        ("BIO_new", c_void_p, c_void_p),
        ("BIO_read", c_int, c_void_p, c_char_p, c_int),
        ("BIO_write", c_int, c_void_p, c_char_p, c_int),
        ("BIO_ctrl_pending", c_size_t, c_void_p),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class Client:
    """A connection to a server, whose certificate is not verified. The methods that make records do not send them."""

    def __init__(self, port: int, *, room: int | None = None) -> None:
        """Connect; `room` is the size of the receive buffer."""
        self._lib = _load()
        self._context = self._lib.SSL_CTX_new(self._lib.TLS_client_method())
        self._ssl = self._lib.SSL_new(self._context)
        self._incoming, self._outgoing = (self._lib.BIO_new(self._lib.BIO_s_mem()) for _ in range(2))
        self._lib.SSL_set_bio(self._ssl, self._incoming, self._outgoing)
        self._lib.SSL_set_connect_state(self._ssl)
        self.sock = socket.socket()
        self.sock.settimeout(20)
        if room is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        self.sock.connect(("127.0.0.1", port))
        while self._lib.SSL_do_handshake(self._ssl) != 1:
            self.sock.sendall(self._made())
            self._take(self.sock.recv(65536))
        self.sock.sendall(self._made())

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        self._lib.SSL_free(self._ssl)
        self._lib.SSL_CTX_free(self._context)

    def _take(self, data: bytes) -> None:
        assert data, "the server ended the connection"
        self._lib.BIO_write(self._incoming, data, len(data))

    def _made(self) -> bytes:
        size = self._lib.BIO_ctrl_pending(self._outgoing)
        buffer = ctypes.create_string_buffer(size)
        self._lib.BIO_read(self._outgoing, buffer, size)
        return buffer.raw

    def key_updates(self, count: int, request: int = 0) -> bytes:
        """Records without application data."""
        for _ in range(count):
            assert self._lib.SSL_key_update(self._ssl, request) == 1
            assert self._lib.SSL_do_handshake(self._ssl) == 1
        return self._made()

    def encrypted(self, data: bytes, size: int = 16384) -> bytes:
        """Records with so many bytes of application data each."""
        for start in range(0, len(data), size):
            part = data[start : start + size]
            assert self._lib.SSL_write(self._ssl, part, len(part)) == len(part)
        return self._made()

    def pad(self, block: int) -> None:
        """Make all further records a multiple of this long (RFC 8446, 5.4)."""
        assert self._lib.SSL_set_block_padding(self._ssl, block) == 1

    def read(self) -> bytes:
        """The next application data."""
        buffer = ctypes.create_string_buffer(65536)
        while (size := self._lib.SSL_read(self._ssl, buffer, len(buffer))) <= 0:
            self._take(self.sock.recv(65536))
        return buffer.raw[:size]

    def has_ended(self) -> bool:
        """Wait for the end of the connection, whatever comes before."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionError:
            pass
        return True
