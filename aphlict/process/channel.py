"""Messages between the processes of a server: the startup report, the steps of a reload, and lines of the log."""

import contextlib
import os
import socket

import msgspec

from aphlict.config.files import FileReader
from aphlict.config.settings import Settings
from aphlict.core.overview import LoggedEvent
from aphlict.errors import AphlictError, StartFailed

PIPE_BUF = 4096  # bytes that one write to a pipe keeps together (pipe(7))
MAX_SENTENCE = 3000  # characters: a report must fit one such write
MAX_MESSAGE = 16 * 1024  # bytes


class ReportedError(AphlictError):
    """An error that another process reported, with that error's code and exit status."""

    def __init__(self, sentence: str, code: str, exit_status: int) -> None:
        super().__init__(sentence)
        self.code = code
        self.exit_status = exit_status


class StartupReport(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The result of a start: ready if there is no sentence, otherwise an error."""

    sentence: str | None = None
    code: str = AphlictError.code
    exit_status: int = AphlictError.exit_status

    @classmethod
    def from_error(cls, error: BaseException) -> "StartupReport":
        """The report for an error; an unexpected one is named by its type."""
        if isinstance(error, AphlictError):
            return cls(sentence=str(error)[:MAX_SENTENCE], code=error.code, exit_status=error.exit_status)
        return cls(sentence=f"{type(error).__name__}: {error}"[:MAX_SENTENCE])

    def raise_error(self) -> None:
        """Raise ReportedError, unless the report is: ready."""
        if self.sentence is not None:
            raise ReportedError(self.sentence, self.code, self.exit_status)


READY = StartupReport()


class ReportPipe:
    """The write end of a pipe for one report."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Its descriptor; -1 once it is closed."""
        return self._descriptor

    def send(self, report: StartupReport) -> None:
        """Send the report and close the pipe; later calls do nothing. A reader that has exited is no error."""
        if self._descriptor < 0:
            return
        data = msgspec.json.encode(report)
        if len(data) > PIPE_BUF:
            data = msgspec.json.encode(StartupReport(sentence="the start failed", code=report.code))
        with contextlib.suppress(BrokenPipeError):
            os.write(self._descriptor, data)
        self.close()

    def close(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1  # the number may become that of another file


def receive_report(descriptor: int) -> None:
    """Wait for the report. Raises ReportedError, or StartFailed if the process exits without a report."""
    data = os.read(descriptor, PIPE_BUF)
    if not data:
        raise StartFailed("the server exited before it was ready")
    msgspec.json.decode(data, type=StartupReport).raise_error()


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """To a worker: prepare the snapshot whose descriptor comes with this message. The response is Prepared."""

    number: int


class Prepared(msgspec.Struct, frozen=True, tag=True):
    """From a worker: it has prepared the snapshot, or cannot use it, for the reason in `error`."""

    number: int
    error: str | None = None


class Commit(msgspec.Struct, frozen=True, tag=True):
    """To a worker: apply the prepared snapshot. The response is Committed."""

    number: int


class Committed(msgspec.Struct, frozen=True, tag=True):
    """From a worker: it uses the snapshot."""

    number: int


class Discard(msgspec.Struct, frozen=True, tag=True):
    """To a worker: drop the prepared snapshot."""

    number: int


class Logged(msgspec.Struct, frozen=True, tag=True):
    """To the worker with the admin port: the supervisor has logged a line."""

    event: LoggedEvent


ChannelMessage = StartupReport | Prepare | Prepared | Commit | Committed | Discard | Logged

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(ChannelMessage)


class Channel:
    """One end of a pair of sockets between the supervisor and a worker: it closes when the other process exits.

    Never blocks.
    """

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

    def send(self, message: ChannelMessage, descriptor: int | None = None) -> None:
        """Send a message, optionally with a descriptor. Raises OSError if the other end accepts none."""
        descriptors = [] if descriptor is None else [descriptor]
        socket.send_fds(self._socket, [_encode(message)], descriptors, socket.MSG_NOSIGNAL)

    def receive(self) -> tuple[ChannelMessage, int | None] | None:
        """The next message and the descriptor that came with it, which the caller has to close.

        None if the other end is closed. Raises BlockingIOError if there is no message yet.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, MAX_MESSAGE, 1)
        except ConnectionResetError:
            return None
        return (_decoder.decode(data), descriptors[0] if descriptors else None) if data else None

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def pair() -> tuple[Channel, Channel]:
    """Both ends of a new channel. Raises OSError."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(other)


class Snapshot(msgspec.Struct, frozen=True):
    """A configuration with the contents of the files that it names."""

    settings: Settings
    contents: dict[str, bytes]

    def write(self) -> int:
        """Write it to a memory file; returns the descriptor, which the caller has to close. Raises OSError."""
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
        """Read it from a memory file, and close the descriptor. Raises OSError."""
        with os.fdopen(descriptor, "rb") as file:
            return msgspec.msgpack.decode(os.pread(file.fileno(), os.fstat(descriptor).st_size, 0), type=cls)

    @property
    def files(self) -> FileReader:
        """A reader of these files."""
        return FileReader(self.contents)
