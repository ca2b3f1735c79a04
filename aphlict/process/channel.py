"""Messages between the supervisor and a worker: a pair of sockets, whose end says that the other process is gone."""

import os
import socket

import msgspec

from aphlict.config.files import FileReader
from aphlict.config.settings import Settings
from aphlict.process.startup_report import Report

LONGEST = 16 * 1024  # bytes of a message


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """To a worker: prepare the snapshot whose descriptor comes with this message. The answer is Prepared."""

    number: int


class Prepared(msgspec.Struct, frozen=True, tag=True):
    """From a worker: it can switch to the snapshot, or cannot and why."""

    number: int
    refusal: str | None = None


class Commit(msgspec.Struct, frozen=True, tag=True):
    """To a worker: switch to what it prepared. The answer is Committed."""

    number: int


class Committed(msgspec.Struct, frozen=True, tag=True):
    """From a worker: it has switched."""

    number: int


class Discard(msgspec.Struct, frozen=True, tag=True):
    """To a worker: drop what it prepared."""

    number: int


Message = Report | Prepare | Prepared | Commit | Committed | Discard

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Message)


class Channel:
    """One end of the pair. Never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock

    @property
    def is_open(self) -> bool:
        """Whether this end has not been closed."""
        return self._socket.fileno() >= 0

    def fileno(self) -> int:
        """Its descriptor."""
        return self._socket.fileno()

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Send a message, with a descriptor where one is given. Raises OSError where the other end takes none."""
        descriptors = [] if descriptor is None else [descriptor]
        socket.send_fds(self._socket, [_encode(message)], descriptors, socket.MSG_NOSIGNAL)

    def receive(self) -> tuple[Message, int | None] | None:
        """The next message, and the descriptor that came with it, which is the caller's to close.

        None where the other end is closed. Raises BlockingIOError where there is no message yet.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, LONGEST, 1)
        except ConnectionResetError:
            return None
        return (_decoder.decode(data), descriptors[0] if descriptors else None) if data else None

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def pair() -> tuple[Channel, Channel]:
    """Both ends. Raises OSError."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(other)


class Snapshot(msgspec.Struct, frozen=True):
    """A configuration with the contents of the files that it names."""

    settings: Settings
    contents: dict[str, bytes]

    def write(self) -> int:
        """Put it into memory; returns a descriptor, which is the caller's to close. Raises OSError."""
        descriptor = os.memfd_create("aphlict-snapshot", os.MFD_CLOEXEC)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(_encode(self))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    @classmethod
    def read(cls, descriptor: int) -> "Snapshot":
        """Take it out of memory, and close the descriptor. Raises OSError."""
        with os.fdopen(descriptor, "rb") as file:
            return msgspec.msgpack.decode(os.pread(file.fileno(), os.fstat(descriptor).st_size, 0), type=cls)

    @property
    def files(self) -> FileReader:
        """A reader of these files."""
        return FileReader(self.contents)
