"""What the tests of the doctor share."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.doctor import Doctor


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """The doctor's command."""
    return Doctor(capsys)


@pytest.fixture
def ssh() -> Iterator[int]:
    """A port that greets as an SSH server does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_greet, args=(listener,), daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _greet(listener: socket.socket) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        with sock, suppress(OSError):
            sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            sock.recv(4096)
