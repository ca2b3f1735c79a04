"""`publish` and `subscribe`, from one to the other."""

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


class Subscriber:
    """A running `subscribe`, and its output."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Read both of its streams."""
        self.process = process
        self.messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self.lines: list[str] = []
        self.notes: list[str] = []
        assert process.stdout
        assert process.stderr
        self._threads = [
            self._follow(process.stdout, self._on_line),
            self._follow(process.stderr, self.notes.append),
        ]

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait for a text on standard error."""
        wait_until(lambda: sum(text in line for line in self.notes) >= times, text)

    def close(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(10)
        for thread in self._threads:
            thread.join(10)

    def _on_line(self, line: str) -> None:
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
def subscribing(installation: Installation, *words: str, **more: Any) -> Iterator[Subscriber]:
    """A `subscribe` whose subscription is complete."""
    with installation.begin("subscribe", *words, **more) as process:
        subscriber = Subscriber(process)
        try:
            subscriber.wait_for("Subscribed to")
            yield subscriber
        finally:
            subscriber.close()


def publish(installation: Installation, *words: str) -> dict[str, Any]:
    """Publish, and return the receipt."""
    done = installation.run("publish", *words)
    assert done.returncode == 0, done
    receipt = json.loads(done.stdout)
    assert isinstance(receipt, dict)
    return receipt


def test_a_message_is_received(installation: Installation) -> None:
    installation.start()
    with subscribing(installation, "demo", "other") as subscriber:
        receipt = publish(installation, "demo", "--message", "grüße\n")
        message = subscriber.messages.get(timeout=5)
    assert receipt["matched"] == 1
    assert message["uniqueID"] == receipt["uniqueID"]
    assert (message["type"], message["text"], message["subscribers"]) == ("notification", "grüße\n", ["demo"])
    assert subscriber.process.returncode == 130


def test_an_object_is_published_unchanged(installation: Installation) -> None:
    installation.start()
    with subscribing(installation, "a", "b") as subscriber:
        publish(installation, "--data", '{"type": "pong", "key": [1, null], "subscribers": ["a", "b"]}')
        first = subscriber.messages.get(timeout=5)
        publish(installation, "b", "--data", '{"key": 7, "subscribers": ["a"]}')
        second = subscriber.messages.get(timeout=5)
    assert (first["type"], first["key"], sorted(first["subscribers"])) == ("pong", [1, None], ["a", "b"])
    assert (second["key"], second["subscribers"]) == (7, ["b"])


@pytest.mark.parametrize(("encoding", "is_escaped"), [("ascii", True), ("latin-1", True), ("utf-8", False)])
def test_the_output_is_json_on_any_terminal(
    installation: Installation, encoding: str, is_escaped: bool
) -> None:
    installation.start()
    text = "grüße \N{WAVING HAND SIGN}"
    terminal = {"env": environment(PYTHONIOENCODING=encoding), "encoding": encoding}
    with subscribing(installation, "demo", **terminal) as subscriber:
        for message in (text, "more"):
            publish(installation, "demo", "--message", message)
        assert [subscriber.messages.get(timeout=5)["text"] for _ in range(2)] == [text, "more"]
    assert subscriber.lines[0].isascii() == is_escaped


UNPRINTABLE = "\x1b[2J\x9b31m\x7f\x85\u202e\u2066\u2028\n\ufeff\U000e0041"


def test_a_message_is_escaped(installation: Installation) -> None:
    installation.start()
    with subscribing(installation, "demo", env=environment(PYTHONIOENCODING="utf-8")) as subscriber:
        receipt = publish(
            installation, "demo", "--data", json.dumps({"text": UNPRINTABLE, "uniqueID": "\x7f"})
        )
        assert subscriber.messages.get(timeout=5)["text"] == UNPRINTABLE
    assert all(line.rstrip("\n").isprintable() for line in subscriber.lines)
    assert receipt["uniqueID"] == "\x7f"


def test_an_error_of_a_server_is_escaped(installation: Installation) -> None:
    def serve_one(client: ServerConnection) -> None:
        client.send(json.dumps({"type": "error", "error": UNPRINTABLE}))
        client.recv()
        client.close(4001, "\x9b\u202e\x1b[2J")

    with serve(serve_one, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
        done = installation.run("subscribe", "demo", "--url", url, env=environment(PYTHONIOENCODING="utf-8"))
        server.shutdown()
        thread.join()
    assert done.returncode == 1
    rejected, closed = done.stderr.splitlines()
    assert "[2J" in rejected
    assert "[2J" in closed
    assert all(line.isprintable() for line in (rejected, closed))


def test_instances_are_separate(installation: Installation) -> None:
    installation.start()
    with subscribing(installation, "demo", "--instance", "a/ü~b") as subscriber:
        assert publish(installation, "demo", "--message", "no")["matched"] == 0
        assert publish(installation, "demo", "--message", "yes", "--instance", "a/ü~b")["matched"] == 1
        assert subscriber.messages.get(timeout=5)["text"] == "yes"


def test_the_url_can_be_given(installation: Installation) -> None:
    installation.start()
    url = f"ws://localhost:{installation.client_port}/any/?color=red"
    with subscribing(installation, "demo", "--url", url, "--instance", "x") as subscriber:
        publish(installation, "demo", "--message", "hello", "--instance", "x")
        assert subscriber.messages.get(timeout=5)["text"] == "hello"


def test_a_subscriber_reconnects_and_resumes(installation: Installation) -> None:
    """A worker that exits disconnects its clients; the next one has another history, and reports a gap."""
    installation.start()
    with subscribing(installation, "demo") as subscriber:
        publish(installation, "demo", "--message", "before")
        installation.worker().terminate()
        subscriber.wait_for("Subscribed to", times=2)
        publish(installation, "demo", "--message", "after")
        assert [subscriber.messages.get(timeout=5)["text"] for _ in range(2)] == ["before", "after"]
    assert any("closed (1001)" in line for line in subscriber.notes)
    assert any("messages may be missing" in line for line in subscriber.notes)


def test_a_subscriber_may_start_before_the_server(installation: Installation) -> None:
    with installation.begin("subscribe", "demo") as process:
        subscriber = Subscriber(process)
        try:
            subscriber.wait_for("cannot connect to")
            installation.start()
            subscriber.wait_for("Subscribed to")
        finally:
            subscriber.close()
    assert "Traceback" not in "".join(subscriber.notes)


def first_note(installation: Installation, url: str, part: str) -> str:
    """Return the first line of a `subscribe` that cannot connect; it contains this text."""
    with installation.begin("subscribe", "demo", "--url", url) as process:
        subscriber = Subscriber(process)
        subscriber.wait_for(part)
        subscriber.close()
    return str(subscriber.notes[0])


def test_the_certificate_of_a_given_url_is_verified(installation: Installation) -> None:
    files = certificates.self_signed("elsewhere.example").write(installation.folder)
    servers = json.loads(installation.config.read_text())["servers"]
    servers[0] |= files.settings()
    installation.write(servers=servers)
    installation.start()
    url = f"wss://localhost:{installation.client_port}/"
    assert "--insecure" in first_note(installation, url, "the certificate is not trusted")
    with subscribing(installation, "demo", "--url", url, "--insecure"), subscribing(installation, "demo"):
        assert publish(installation, "demo", "--message", "x")["matched"] == 2


def test_the_admin_port(installation: Installation) -> None:
    installation.start()
    url = f"ws://localhost:{installation.admin_port}/"
    assert "aphlict doctor --url" in first_note(installation, url, "response 40")


def test_a_rejected_subscription_is_an_error(installation: Installation) -> None:
    installation.start()
    done = installation.run("subscribe", "x" * 1000)
    assert (done.returncode, "rejected the subscription: " in done.stderr) == (1, True), done


def test_errors_of_the_publisher(installation: Installation) -> None:
    done = installation.run("publish", "demo", "--message", "x")
    assert (done.returncode, "no response from the admin server" in done.stderr) == (1, True)
    installation.write(body=1000)
    installation.start()
    done = installation.run("publish", "demo", "--message", "x" * 2000)
    assert (done.returncode, "responded with 413: " in done.stderr) == (1, True)


@pytest.mark.parametrize("command", ["stop", "status", "check", "publish demo --message x"])
def test_a_closed_pipe_is_not_an_error(installation: Installation, command: str) -> None:
    installation.start()
    with installation.begin(*command.split()) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        err = process.stderr.read()
    assert "Traceback" not in err
    assert "unexpected" not in err
