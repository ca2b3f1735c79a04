"""Fixtures of the tests of the doctor."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.doctor import Doctor


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """The doctor's command."""
    return Doctor(capsys)


@pytest.fixture
def ssh() -> Iterator[int]:
    """The port of a program that greets like an SSH server."""
    with greeting(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        yield port


@pytest.fixture
def old_proxy() -> Iterator[int]:
    """The port of a program that responds in HTTP/1.0."""
    with greeting(b"HTTP/1.0 404 Not Found\r\nServer: old/1.0\r\n\r\nnothing here") as port:
        yield port


@contextmanager
def greeting(data: bytes) -> Iterator[int]:
    """Accept connections, send this to each, and close it after the first request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_greet, args=(listener, data), daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _greet(listener: socket.socket, data: bytes) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        with sock, suppress(OSError):
            sock.sendall(data)
            sock.recv(4096)
