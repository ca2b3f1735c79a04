"""Going to the background: what is reported to the starter, and what is not."""

import os
from pathlib import Path

import pytest

from aphlict.process import daemon
from aphlict.process.channel import READY, ReportedError, ReportPipe


def test_an_error_before_the_report_reaches_the_starter() -> None:
    def serve(_starter: ReportPipe) -> int:
        raise RuntimeError("no")

    with pytest.raises(ReportedError, match="RuntimeError: no"):
        daemon.detach(serve, frozenset())


def test_an_error_after_the_report_is_written_to_no_other_file(tmp_path: Path) -> None:
    """A file that is opened later gets the descriptor of the pipe."""
    reused = tmp_path / "reused"
    receiver, sender = os.pipe()  # ends with the process

    def serve(starter: ReportPipe) -> int:
        number = starter.fileno()
        starter.send(READY)
        while (descriptor := os.open(reused, os.O_RDWR | os.O_CREAT)) < number:
            pass
        os.write(sender, b"same" if descriptor == number else b"another")
        raise RuntimeError("later")

    daemon.detach(serve, frozenset())
    os.close(sender)
    with os.fdopen(receiver, "rb") as file:
        assert file.read() == b"same"
    assert reused.read_bytes() == b""
