"""`notify` and `listen`: a message from one to the other."""

import json
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pytest
from websockets.sync.server import ServerConnection, serve

from tests.support import certificates
from tests.support.installation import Installation, environment
from tests.support.waiting import wait_until


class Ear:
    """A running `listen`, and what it printed."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Read both of its streams."""
        self.process = process
        self.messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self.lines: list[str] = []
        self.remarks: list[str] = []
        assert process.stdout
        assert process.stderr
        self._threads = [
            self._follow(process.stdout, self._hear),
            self._follow(process.stderr, self.remarks.append),
        ]

    def wait_for(self, remark: str, times: int = 1) -> None:
        """Wait until it has said so on standard error."""
        wait_until(lambda: sum(remark in line for line in self.remarks) >= times, remark)

    def close(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(10)
        for thread in self._threads:
            thread.join(10)

    def _hear(self, line: str) -> None:
        self.lines.append(line)
        self.messages.put(json.loads(line))

    @staticmethod
    def _follow(stream: IO[str], take: Any) -> threading.Thread:
        def read() -> None:
            for line in stream:
                take(line)

        thread = threading.Thread(target=read)
        thread.start()
        return thread


@contextmanager
def listening(installation: Installation, *words: str, **more: Any) -> Iterator[Ear]:
    """A `listen` that has its channels."""
    with installation.begin("listen", *words, **more) as process:
        ear = Ear(process)
        try:
            ear.wait_for("Listening to")
            yield ear
        finally:
            ear.close()


def notify(installation: Installation, *words: str) -> dict[str, Any]:
    """Publish, and return the receipt."""
    done = installation.run("notify", *words)
    assert done.returncode == 0, done
    receipt = json.loads(done.stdout)
    assert isinstance(receipt, dict)
    return receipt


def test_a_message_goes_from_one_to_the_other(installation: Installation) -> None:
    installation.start()
    with listening(installation, "demo", "other") as ear:
        receipt = notify(installation, "demo", "--message", "grüße\n")
        message = ear.messages.get(timeout=5)
    assert receipt["matched"] == 1
    assert message["uniqueID"] == receipt["uniqueID"]
    assert (message["type"], message["text"], message["subscribers"]) == ("notification", "grüße\n", ["demo"])
    assert ear.process.returncode == 130


def test_an_object_goes_as_it_is(installation: Installation) -> None:
    installation.start()
    with listening(installation, "a", "b") as ear:
        notify(installation, "--data", '{"type": "pong", "key": [1, null], "subscribers": ["a", "b"]}')
        first = ear.messages.get(timeout=5)
        notify(installation, "b", "--data", '{"key": 7, "subscribers": ["a"]}')
        second = ear.messages.get(timeout=5)
    assert (first["type"], first["key"], sorted(first["subscribers"])) == ("pong", [1, None], ["a", "b"])
    assert (second["key"], second["subscribers"]) == (7, ["b"])


@pytest.mark.parametrize(("encoding", "is_escaped"), [("ascii", True), ("latin-1", True), ("utf-8", False)])
def test_what_is_heard_is_json_on_any_terminal(
    installation: Installation, encoding: str, is_escaped: bool
) -> None:
    installation.start()
    text = "grüße \N{WAVING HAND SIGN}"
    terminal = {"env": environment(PYTHONIOENCODING=encoding), "encoding": encoding}
    with listening(installation, "demo", **terminal) as ear:
        for message in (text, "more"):
            notify(installation, "demo", "--message", message)
        assert [ear.messages.get(timeout=5)["text"] for _ in range(2)] == [text, "more"]
    assert ear.lines[0].isascii() == is_escaped


UNPRINTABLE = "\x1b[2J\x9b31m\x7f\x85\u202e\u2066\u2028\n\ufeff\U000e0041"


def test_a_message_cannot_harm_a_terminal(installation: Installation) -> None:
    installation.start()
    with listening(installation, "demo", env=environment(PYTHONIOENCODING="utf-8")) as ear:
        receipt = notify(
            installation, "demo", "--data", json.dumps({"text": UNPRINTABLE, "uniqueID": "\x7f"})
        )
        assert ear.messages.get(timeout=5)["text"] == UNPRINTABLE
    assert all(line.rstrip("\n").isprintable() for line in ear.lines)
    assert receipt["uniqueID"] == "\x7f"


def test_an_error_of_a_server_cannot_harm_a_terminal(installation: Installation) -> None:
    def speak(browser: ServerConnection) -> None:
        browser.send(json.dumps({"type": "error", "error": UNPRINTABLE}))
        browser.recv()
        browser.close(4001, "\x9b\u202e\x1b[2J")

    with serve(speak, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
        done = installation.run("listen", "demo", "--url", url, env=environment(PYTHONIOENCODING="utf-8"))
        server.shutdown()
        thread.join()
    assert done.returncode == 1
    refused, ended = done.stderr.splitlines()
    assert "[2J" in refused
    assert "[2J" in ended
    assert all(line.isprintable() for line in (refused, ended))


def test_instances_are_apart(installation: Installation) -> None:
    installation.start()
    with listening(installation, "demo", "--instance", "a/ü~b") as ear:
        assert notify(installation, "demo", "--message", "no")["matched"] == 0
        assert notify(installation, "demo", "--message", "yes", "--instance", "a/ü~b")["matched"] == 1
        assert ear.messages.get(timeout=5)["text"] == "yes"


def test_the_address_can_be_given(installation: Installation) -> None:
    installation.start()
    url = f"ws://localhost:{installation.client_port}/any/?color=red"
    with listening(installation, "demo", "--url", url, "--instance", "x") as ear:
        notify(installation, "demo", "--message", "hello", "--instance", "x")
        assert ear.messages.get(timeout=5)["text"] == "hello"


def test_a_listener_comes_back_and_resumes(installation: Installation) -> None:
    """The browsers are sent away by a worker that ends; the next one has another history, and says so."""
    installation.start()
    with listening(installation, "demo") as ear:
        notify(installation, "demo", "--message", "before")
        installation.worker().terminate()
        ear.wait_for("Listening to", times=2)
        notify(installation, "demo", "--message", "after")
        assert [ear.messages.get(timeout=5)["text"] for _ in range(2)] == ["before", "after"]
    assert any("closed (1001)" in line for line in ear.remarks)
    assert any("Some messages may be missing" in line for line in ear.remarks)


def test_a_listener_may_come_before_the_server(installation: Installation) -> None:
    with installation.begin("listen", "demo") as process:
        ear = Ear(process)
        try:
            ear.wait_for("Cannot connect to")
            installation.start()
            ear.wait_for("Listening to")
        finally:
            ear.close()
    assert "Traceback" not in "".join(ear.remarks)


def remark_of(installation: Installation, url: str, part: str) -> str:
    """What `listen` says first where it cannot connect, which has this part."""
    with installation.begin("listen", "demo", "--url", url) as process:
        ear = Ear(process)
        ear.wait_for(part)
        ear.close()
    return str(ear.remarks[0])


def test_certificates_are_checked_where_an_address_is_given(installation: Installation) -> None:
    files = certificates.self_signed("elsewhere.example").write(installation.folder)
    servers = json.loads(installation.config.read_text())["servers"]
    servers[0] |= files.settings()
    installation.write(servers=servers)
    installation.start()
    url = f"wss://localhost:{installation.client_port}/"
    said = remark_of(installation, url, "its certificate is not accepted")
    assert "(--insecure takes any)" in said, "it says no more than that"
    with listening(installation, "demo", "--url", url, "--insecure"), listening(installation, "demo"):
        assert notify(installation, "demo", "--message", "x")["matched"] == 2


def test_a_port_that_does_not_serve_browsers(installation: Installation) -> None:
    installation.start()
    url = f"ws://localhost:{installation.admin_port}/"
    assert "aphlict doctor --url" in remark_of(installation, url, "it answered 40")


def test_a_listener_that_is_refused_ends(installation: Installation) -> None:
    installation.start()
    done = installation.run("listen", "x" * 1000)
    assert (done.returncode, "refused to be listened to: " in done.stderr) == (1, True), done


def test_the_publisher_is_told_what_is_wrong(installation: Installation) -> None:
    done = installation.run("notify", "demo", "--message", "x")
    assert (done.returncode, "does not answer: " in done.stderr) == (1, True)
    installation.write(body=1000)
    installation.start()
    done = installation.run("notify", "demo", "--message", "x" * 2000)
    assert (done.returncode, "answers 413: " in done.stderr) == (1, True)


@pytest.mark.parametrize("command", ["stop", "status", "check", "notify demo --message x"])
def test_a_reader_that_leaves_is_no_error(installation: Installation, command: str) -> None:
    installation.start()
    with installation.begin(*command.split()) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        err = process.stderr.read()
    assert "Traceback" not in err
    assert "unexpected" not in err
