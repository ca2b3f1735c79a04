"""Logs as JSON, and the level of each log."""

import json
import logging
import re
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from aphlict import log_events
from aphlict.errors import PeerError
from aphlict.log_events import KEYS, Aside
from aphlict.process.logs import LogFile, LogHandler
from tests.support.installation import Installation, running_server
from tests.support.waiting import wait_until

DEBUG, WARNING = logging.DEBUG, logging.WARNING


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of its own."""
    logger = logging.Logger("test")
    yield logger
    for handler in logger.handlers:
        handler.close()


def journal(log: logging.Logger, *files: LogFile, trace: bool = False) -> LogHandler:
    """A handler that writes to these files."""
    handler = LogHandler(files, trace=trace)
    handler.install(log)
    return handler


def objects(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; the last one may be incomplete while a server writes."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def test_a_line_is_an_object_with_the_keys_in_order(tmp_path: Path, log: logging.Logger) -> None:
    journal(log, LogFile(tmp_path / "log", "json"))
    log.warning(log_events.PEER_UP, "http://b:22281", 1.23456, 7)
    [line] = objects(tmp_path / "log")
    assert list(line) == [*KEYS, "peer", "seconds", "count"]
    assert (line["event"], line["level"], line["process"]) == ("peer_up", "warning", "supervisor")
    assert (line["peer"], line["seconds"], line["count"]) == ("http://b:22281", 1.235, 7)


def test_the_time_is_rfc_3339_with_milliseconds(tmp_path: Path, log: logging.Logger) -> None:
    before = datetime.now().astimezone()
    journal(log, LogFile(tmp_path / "log", "json"))
    log.info(log_events.STOPPED)
    [line] = objects(tmp_path / "log")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", line["time"])
    assert abs((datetime.fromisoformat(line["time"]) - before).total_seconds()) < 60


def test_the_message_is_the_sentence_of_the_text_log(tmp_path: Path, log: logging.Logger) -> None:
    """Data is not escaped, but for JSON."""
    journal(log, LogFile(tmp_path / "json", "json"), LogFile(tmp_path / "text"))
    log.warning(log_events.PEER_UNREACHABLE, "b\x1b[31m", "a\nb\u202e\udc80")
    text = (tmp_path / "text").read_text()
    [line] = objects(tmp_path / "json")
    assert text.endswith(f"] {line['message']}\n")
    assert (line["peer"], line["reason"]) == ("b\x1b[31m", "a\nb\u202e\udc80")
    assert (tmp_path / "json").read_text().removesuffix("\n").isprintable()


def test_an_error_of_the_package_adds_its_code(tmp_path: Path, log: logging.Logger) -> None:
    journal(log, LogFile(tmp_path / "log", "json"))
    log.warning(log_events.PEER_UNREACHABLE, "b", PeerError("no"))
    log.warning(log_events.WORKER_EXITED, "hub", 7, 1.0, "killed", Aside(PeerError("no")), 0.5)
    log.warning(log_events.WORKER_EXITED, "hub", 7, 1.0, "killed", Aside(None), 0.5)
    first, second, third = objects(tmp_path / "log")
    assert (first["reason"], first["code"]) == ("no", PeerError.code)
    assert (second["reason"], second["code"]) == ("no", PeerError.code)
    assert {"reason", "code"} & third.keys() == set()


def test_values_keep_their_types(tmp_path: Path, log: logging.Logger) -> None:
    journal(log, LogFile(tmp_path / "log", "json"))
    log.warning(log_events.PUBLISHED, "m", ("a", "b"), {"matched": 2, "x": float("inf")}, Aside(""))
    [line] = objects(tmp_path / "log")
    assert line["channels"] == ["a", "b"]
    assert line["receipt"] == {"matched": 2, "x": "inf"}
    assert "traceparent" not in line
    log.info(log_events.LISTENING, "n", log_events.Names(["client a:1", "admin b:2"]))
    line = objects(tmp_path / "log")[-1]
    assert line["ports"] == ["client a:1", "admin b:2"]
    assert line["message"] == "node n listens on client a:1, admin b:2"


def test_an_exception_is_data(tmp_path: Path, log: logging.Logger) -> None:
    journal(log, LogFile(tmp_path / "log", "json"))
    try:
        int("x")
    except ValueError:
        log.exception(log_events.CONNECTION_FAILED)
    [line] = objects(tmp_path / "log")
    assert line["error"].startswith("ValueError: invalid literal")
    assert re.fullmatch(r"test_structured_logs.py:\d+", line["at"][0])


def test_lines_of_libraries_name_their_logger(tmp_path: Path, log: logging.Logger) -> None:
    journal(log, LogFile(tmp_path / "log", "json"))
    log.warning("odd %s", "thing")
    log.warning("%d", "x")
    log.warning("%(a)s", {"a": 1})
    first, second, third = objects(tmp_path / "log")
    assert (first["event"], first["logger"], first["message"]) == ("library", "test", "odd thing")
    assert second["message"] == "%d (invalid arguments)"
    assert third["message"] == "1"


def test_repeated_lines_are_counted_in_both_formats(tmp_path: Path, log: logging.Logger) -> None:
    handler = journal(log, LogFile(tmp_path / "json", "json"), LogFile(tmp_path / "text"))
    for _ in range(5):
        log.warning(log_events.MESSAGES_UNSENT, 3)
    for number in range(25):
        log.warning(log_events.COMMAND_REJECTED, number, "192.0.2.1", "odd")
    handler.flush_repeats(everything=True)
    lines = objects(tmp_path / "json")
    counts = [line for line in lines if {"more_times", "more_lines"} & line.keys()]
    assert [(line["event"], line.get("more_times"), line.get("more_lines")) for line in counts] == [
        ("messages_unsent", 4, None),
        ("command_rejected", None, 5),
    ]
    assert counts[0]["count"] == 3
    text = (tmp_path / "text").read_text()
    assert "… 4 more times" in text
    assert len(text.splitlines()) == len(lines)


def test_lost_lines_are_an_event(tmp_path: Path, log: logging.Logger) -> None:
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    journal(log, LogFile(path, "json"))
    log.info(log_events.STOPPED)
    log.info(log_events.LOGS_REOPENED)
    path.unlink()
    log.info(log_events.RELOADED, "x")
    lost, found = objects(path)
    assert (lost["event"], lost["count"], found["event"]) == ("lines_lost", 2, "reloaded")


def test_each_log_has_its_level(tmp_path: Path, log: logging.Logger) -> None:
    journal(
        log,
        LogFile(tmp_path / "all", level=DEBUG),
        LogFile(tmp_path / "default"),
        LogFile(tmp_path / "warnings", level=WARNING),
    )
    for level in (DEBUG, logging.INFO, WARNING):
        log.log(level, "level %d", level)
    counts = {
        name: len((tmp_path / name).read_text().splitlines()) for name in ("all", "default", "warnings")
    }
    assert counts == {"all": 3, "default": 2, "warnings": 1}


def test_debug_lines_cost_nothing_unless_a_log_wants_them(tmp_path: Path, log: logging.Logger) -> None:
    handler = journal(log, LogFile(tmp_path / "log"), LogFile(tmp_path / "warnings", level=WARNING))
    assert not log.isEnabledFor(DEBUG)
    handler.replace_files([])
    assert not log.isEnabledFor(DEBUG)
    files = [LogFile(tmp_path / "warnings", level=WARNING)]
    files[0].open()
    handler.replace_files(files)
    assert not log.isEnabledFor(DEBUG)


def test_debug_lines_are_not_counted_as_repeats(tmp_path: Path, log: logging.Logger) -> None:
    journal(log, LogFile(tmp_path / "log", level=DEBUG))
    for _ in range(100):
        log.debug("same")
    assert len((tmp_path / "log").read_text().splitlines()) == 100


def test_a_trace_writes_everything_to_logs_without_a_level(tmp_path: Path, log: logging.Logger) -> None:
    journal(log, LogFile(tmp_path / "all"), LogFile(tmp_path / "warnings", level=WARNING), trace=True)
    log.debug("x")
    assert (tmp_path / "all").read_text()
    assert not (tmp_path / "warnings").read_text()


# A server


def write(installation: Installation, **changes: Any) -> Path:
    """Add a JSON log to the configuration."""
    path = installation.folder / "log.json"
    level = {"level": changes.pop("level")} if "level" in changes else {}
    logs = [{"path": str(installation.log)}, {"path": str(path), "format": "json", **level}]
    installation.write(logs=logs, **changes)
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_logs_the_same_in_both_formats(installation: Installation, workers: int) -> None:
    path = write(installation, workers=workers)
    installation.start()
    installation.worker()
    installation.stop()
    lines = objects(path)
    written = [
        re.split(r" \[\d+\] ", line, maxsplit=1)[1] for line in installation.log.read_text().splitlines()
    ]
    assert sorted(line["message"] for line in lines) == sorted(written)
    roles = {line["process"] for line in lines if line["event"] == "listening"}
    assert roles == ({"worker"} if workers == 1 else {"hub", "edge 1", "edge 2"})
    assert len({line["pid"] for line in lines if line["event"] == "listening"}) == len(roles)
    assert lines[-1]["event"] == "stopped"
    assert "library" not in {line["event"] for line in lines}


def test_limits_are_data(installation: Installation) -> None:
    path = write(installation, body=20)
    installation.start()
    for _ in range(2):
        assert installation.post({"subscribers": ["a"], "text": "long enough"})[0] == 413
    installation.stop()
    [line] = [line for line in objects(path) if line["event"] == "limit_reached"]
    assert (line["limit"], line["address"], line["level"]) == ("limits.body", "127.0.0.1", "warning")


def test_warnings_of_the_configuration_have_codes(installation: Installation) -> None:
    path = write(installation)
    keys = json.loads(installation.config.read_text())
    keys["servers"][1]["listen"] = "0.0.0.0"
    installation.config.write_text(json.dumps(keys))
    done = installation.run("start")
    assert done.returncode == 0
    [line] = [line for line in objects(path) if line["event"] == "admin_open"]
    assert line["address"] == f"0.0.0.0:{installation.admin_port}"
    assert f"Warning: {line['message']}" in done.stderr


def test_a_reload_changes_format_and_level(installation: Installation) -> None:
    path = write(installation, level="error")
    supervisor = installation.start()
    assert path.read_text() == ""
    write(installation, level="debug")
    supervisor.send_signal(signal.SIGHUP)
    wait_until(lambda: "reloaded" in {line["event"] for line in objects(path)}, "the new level")
    installation.publish("demo", uniqueID="m1")
    events = {line["event"]: line for line in objects(path)}
    assert events["published"]["unique_id"] == "m1"
    assert events["published"]["level"] == "debug"
    assert not installation.logged("published m1")
    write(installation, level="info")
    supervisor.send_signal(signal.SIGHUP)

    def is_silent() -> bool:
        unique_id = installation.publish("demo")["uniqueID"]
        return unique_id not in {line.get("unique_id") for line in objects(path)}

    wait_until(is_silent, "the old level")


def test_standard_error_of_a_server_in_the_foreground(installation: Installation) -> None:
    """As in containers: every line is there once."""
    installation.write(logs=[{"path": "/dev/stderr", "format": "json"}])
    with installation.begin("start", "--foreground") as process:
        installation.worker()
        process.terminate()
        _, err = process.communicate(timeout=20)
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert events.count("listening") == 1
    assert events[-1] == "stopped"


def test_an_unknown_format_is_rejected(installation: Installation) -> None:
    installation.write(logs=[{"path": "log", "format": "xml"}])
    done = installation.run("check")
    assert done.returncode == 77
    assert 'logs[0].format is "xml", expected "json" or "text"' in done.stderr


def test_the_role_of_a_worker_that_was_restarted(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    with running_server(tmp_path / "a", logs=[{"path": str(path), "format": "json"}]) as server:
        worker = server.worker()
        worker.kill()
        server.next_worker(worker)
        exited = next(line for line in objects(path) if line["event"] == "worker_exited")
        assert (exited["process"], exited["worker"], exited["worker_pid"]) == (
            "supervisor",
            "worker",
            worker.pid,
        )
        assert exited["delay"] == 0.1
