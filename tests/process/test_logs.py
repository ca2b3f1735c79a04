"""Log files: format of lines, rotation, errors."""

import logging
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aphlict.errors import FileError
from aphlict.process.logs import LogFile, LogHandler, StreamSink, open_all
from aphlict.process.pidfile import is_alive
from tests.support.installation import Installation
from tests.support.waiting import wait_until

LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [+-]\d{4} WARNING \[\d+\] "


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of its own."""
    logger = logging.Logger("test")
    yield logger
    for handler in logger.handlers:
        handler.close()


def journal(log: logging.Logger, *sinks: StreamSink, trace: bool = False) -> LogHandler:
    """A journal behind the logger."""
    made = LogHandler(sinks, trace=trace)
    log.addHandler(made)
    return made


def test_a_line_has_date_level_process_and_text(tmp_path: Path, log: logging.Logger) -> None:
    journal(log, LogFile(tmp_path / "log"))
    log.warning("peer %s is unreachable", "b:22281")
    text = (tmp_path / "log").read_text()
    assert re.fullmatch(LINE + r"peer b:22281 is unreachable\n", text)
    assert f"[{os.getpid()}]" in text


def test_warnings_of_tornado_about_connections_are_dropped(tmp_path: Path) -> None:
    """They name no peer; our own line does."""
    code = (
        "import logging, pathlib, sys; from aphlict.process import logs\n"
        "logs.install(logs.LogHandler([logs.LogFile(pathlib.Path(sys.argv[1]))]))\n"
        "tornado = logging.getLogger('tornado.general')\n"
        "tornado.warning('error on read: [SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]')\n"
        "tornado.error('Uncaught exception')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "log")], check=True)
    [line] = (tmp_path / "log").read_text().splitlines()
    assert line.endswith("] Uncaught exception")


def test_every_file_gets_every_line(tmp_path: Path, log: logging.Logger) -> None:
    journal(log, LogFile(tmp_path / "one"), LogFile(tmp_path / "two"))
    log.info("hello")
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text() != ""


def test_a_line_stays_one_line(tmp_path: Path, log: logging.Logger) -> None:
    journal(log, LogFile(tmp_path / "log"))
    log.info("%s", "a\nb\r\x1b[31m\u2028c\udc80\x9b\u202e")
    assert (tmp_path / "log").read_text().endswith(r" a\x0ab\x0d\x1b[31m\u2028c\udc80\x9b\u202e" + "\n")


def test_an_exception_is_part_of_the_line(tmp_path: Path, log: logging.Logger) -> None:
    journal(log, LogFile(tmp_path / "log"))
    try:
        int("x")
    except ValueError:
        log.exception("odd")
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert re.search(r"odd \(ValueError: invalid literal .*, at test_logs.py:\d+\)$", line)


def test_invalid_arguments_do_not_raise(tmp_path: Path, log: logging.Logger) -> None:
    journal(log, LogFile(tmp_path / "log"))
    log.info("%d", "x")
    assert "%d (invalid arguments)" in (tmp_path / "log").read_text()


def test_repeated_lines_are_counted(tmp_path: Path, log: logging.Logger) -> None:
    made = journal(log, LogFile(tmp_path / "log"))
    for _ in range(1001):
        log.warning("full")
    made.flush_repeats(everything=True)
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first.endswith("] full")
    assert second.endswith("] full … 1,000 more times")


def test_lines_of_one_limit_do_not_suppress_those_of_another(installation: Installation) -> None:
    installation.start()
    for number in range(30):
        with socket.create_connection(
            ("127.0.0.1", installation.client_port), 5, source_address=(f"127.0.1.{number + 1}", 0)
        ) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 9000)
            assert b" 431 " in sock.recv(4096)
    with socket.create_connection(("127.0.0.1", installation.admin_port), 5) as sock:
        sock.sendall(b"GET /status/ HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert b" 403 " in sock.recv(4096)
    assert installation.logged("admin.hosts refused 127.0.0.1")
    assert all(installation.logged(f"limits.request_head reached by 127.0.1.{n + 1}\n") for n in range(30))
    shown = installation.run("status").stdout
    assert "limits.request_head (30 times)" in shown
    assert "admin.hosts (once)" in shown


def test_a_trace_counts_nothing(tmp_path: Path, log: logging.Logger) -> None:
    journal(log, LogFile(tmp_path / "log"), trace=True)
    log.info("same")
    log.info("same")
    assert (tmp_path / "log").read_text().count("same") == 2


def test_a_renamed_file_is_replaced(tmp_path: Path, log: logging.Logger) -> None:
    path = tmp_path / "log"
    journal(log, LogFile(path))
    log.info("one")
    path.rename(tmp_path / "log.1")
    log.info("two")
    assert "one" in (tmp_path / "log.1").read_text()
    assert "two" in path.read_text()


def test_a_deleted_folder_is_created_again(tmp_path: Path, log: logging.Logger) -> None:
    (tmp_path / "logs").mkdir()
    journal(log, LogFile(tmp_path / "logs" / "log"))
    log.info("one")
    shutil.rmtree(tmp_path / "logs")
    log.info("two")
    assert "two" in (tmp_path / "logs" / "log").read_text()


def test_the_old_file_is_kept_if_no_new_one_can_be_opened(tmp_path: Path, log: logging.Logger) -> None:
    path = tmp_path / "logs" / "log"
    path.parent.mkdir()
    journal(log, LogFile(path))
    path.parent.rename(tmp_path / "moved")
    path.parent.touch()  # a file where the folder was
    log.info("one")
    log.info("two")
    text = (tmp_path / "moved" / "log").read_text()
    assert [text.count(part) for part in ("cannot open", "one", "two")] == [1, 1, 1]


def test_lines_lost_to_a_full_disk_are_counted(tmp_path: Path, log: logging.Logger) -> None:
    path = tmp_path / "log"
    journal(log, LogFile(path))
    path.unlink()
    path.symlink_to("/dev/full")
    for number in range(3):
        log.info("lost %d", number)
    path.unlink()
    log.info("found")
    assert re.search(r"3 lines were lost here\n.*found\n", path.read_text())


def opened(*paths: Path) -> list[LogFile]:
    """Log files that are open."""
    files = [LogFile(path) for path in paths]
    open_all(files)
    return files


def test_lost_lines_are_reported_by_the_next_file(tmp_path: Path, log: logging.Logger) -> None:
    """Who has made room on a disk sends SIGHUP."""
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    made = journal(log, LogFile(path))
    log.info("lost")
    path.unlink()
    made.replace_files(opened(path))
    log.info("found")
    assert re.search(r"1 line was lost here\n.*found\n", path.read_text())


def test_a_forked_process_drops_the_counts(tmp_path: Path, log: logging.Logger) -> None:
    made = journal(log, LogFile(tmp_path / "log"))
    log.info("again")
    log.info("again")
    made.reset_counts()
    made.flush_repeats(everything=True)
    assert (tmp_path / "log").read_text().count("again") == 1


def test_a_full_console_does_not_block(log: logging.Logger) -> None:
    receiver, sender = os.pipe()
    journal(log, StreamSink(sender))
    began = time.monotonic()
    for number in range(5000):
        log.info("line %d %s", number, "x" * number)
    assert time.monotonic() - began < 10
    os.close(receiver)
    log.info("a reader that left")
    os.close(sender)


def test_a_file_opened_while_there_are_very_many_connections(tmp_path: Path, log: logging.Logger) -> None:
    """After a rotation its descriptor is one that select(2) cannot take."""
    made = journal(log, LogFile(tmp_path / "log"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    many = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    made.reopen()
    log.info("still here")
    for descriptor in many:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "still here" in (tmp_path / "log").read_text()


def test_a_log_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=r"cannot write the log file .*/folder: Is a directory"):
        LogHandler([LogFile(tmp_path / "one"), LogFile(tmp_path / "folder")])


def test_all_new_files_are_opened_or_none(tmp_path: Path, log: logging.Logger) -> None:
    made = journal(log, LogFile(tmp_path / "old"))
    with pytest.raises(FileError):
        opened(tmp_path / "new", tmp_path)
    log.info("one")
    made.replace_files(opened(tmp_path / "new"))
    log.info("two")
    assert "one" in (tmp_path / "old").read_text()
    assert "two" in (tmp_path / "new").read_text()
    assert "two" not in (tmp_path / "old").read_text()


def test_a_rotation_of_the_servers_log_is_followed(installation: Installation) -> None:
    supervisor = installation.start()
    moved = installation.log.rename(installation.log.with_suffix(".1"))
    supervisor.terminate()
    wait_until(lambda: not is_alive(supervisor))
    assert installation.logged("stopping (SIGTERM)")
    assert "stopping" not in moved.read_text()


@pytest.mark.parametrize("number", ["SIGHUP", "SIGUSR1"])
def test_signals_reopen_the_log_in_both_processes(installation: Installation, number: str) -> None:
    supervisor = installation.start()
    worker = installation.worker()
    installation.log.rename(installation.log.with_suffix(".1"))
    supervisor.send_signal(getattr(signal, number))

    def opened() -> bool:
        name = str(installation.log)
        return all(name in {file.path for file in process.open_files()} for process in (supervisor, worker))

    wait_until(opened)


def test_the_server_runs_without_a_writable_log(installation: Installation) -> None:
    (installation.folder / "logs").mkdir()
    installation.log.symlink_to("/dev/full")
    supervisor = installation.start()
    supervisor.send_signal(signal.SIGUSR1)
    assert installation.answers()
    assert installation.run("stop").returncode == 0


def test_the_file_limit_is_raised(installation: Installation) -> None:
    installation.start()
    soft, hard = resource.prlimit(installation.worker().pid, resource.RLIMIT_NOFILE)
    assert soft == hard
