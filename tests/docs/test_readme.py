"""The commands of the README do what it says."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.docs.pages import ROOT, examples, same
from tests.support.installation import Installation, installed
from tests.support.waiting import wait_until

README = ROOT / "README.md"
UNIQUE_ID = re.compile(r'"uniqueID": "\w+"')
CONSOLE = [example.text for example in examples(README, "console")]


class Reader:
    """Runs the commands of the README on free ports."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(self, command: str) -> str:
        """Run a command, and return its output with the ports of the README."""
        return self.read(self.spawn(command).communicate(timeout=30)[0])

    def spawn(self, command: str) -> "subprocess.Popen[str]":
        """Start a command that keeps running."""
        return subprocess.Popen(
            ["sh", "-c", f"exec {self.adapt(command)}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
        )

    def adapt(self, text: str) -> str:
        """Replace ports, program and configuration in the README's text by those of the test."""
        program = f"{sys.executable} -m aphlict"
        text = re.sub(r"bin/aphlict (\w+)", rf"{program} \1 --config {self._installation.config}", text)
        text = text.replace("curl -d", "curl -sS -d").replace("22280", str(self._installation.client_port))
        return text.replace("22281", str(self._installation.admin_port))

    def read(self, text: str) -> str:
        """Replace the ports in an output by those of the README."""
        text = text.replace(str(self._installation.client_port), "22280")
        return text.replace(str(self._installation.admin_port), "22281").replace(
            "client on 127.0.0.1", "client on 0.0.0.0"
        )


@pytest.fixture
def reader() -> Iterator[Reader]:
    with TemporaryDirectory() as folder, installed(Path(folder)) as installation:
        yield Reader(installation)


def command_and_output(example: str) -> tuple[str, str]:
    command, _, output = example.removeprefix("$ ").partition("\n")
    return command, output


def test_the_first_notification(reader: Reader) -> None:
    (start, started), (curl, receipt), (subscribe, received), (publish, published) = map(
        command_and_output, CONSOLE
    )
    assert same(without_warning(reader.run(start))) == same(started)

    with reader.spawn(subscribe) as subscriber:
        assert subscriber.stdout is not None
        begin = [subscriber.stdout.readline() for _ in range(2)]
        receipt_line = reader.run(publish)
        message = subscriber.stdout.readline()
        subscriber.terminate()
        subscriber.communicate()

    assert same(receipt_line) == same(published)
    assert same(reader.read("".join([*begin, message]))) == same(received)
    assert UNIQUE_ID.findall(received) == UNIQUE_ID.findall(published)
    assert same(reader.run(curl)) == same(receipt.replace('"matched":1', '"matched":0'))
    assert "All checks passed" in reader.run("bin/aphlict doctor")


def without_warning(text: str) -> str:
    """Remove warnings: tests may run as root, readers of the README do not."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("Warning: "))


def test_the_backend(reader: Reader) -> None:
    [python] = [example.text for example in examples(README, "python")]
    reader.run("bin/aphlict start")
    subscriber = reader.spawn("bin/aphlict subscribe demo")
    assert subscriber.stdout is not None
    wait_until(lambda: "Subscribed" in subscriber.stdout.readline(), "the subscription")  # type: ignore[union-attr]
    published = subprocess.run(
        [sys.executable, "-c", reader.adapt(python)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert published.stdout == "1\n"
    assert '"text": "hello"' in subscriber.stdout.readline()
    subscriber.terminate()
    subscriber.communicate()


def test_the_commands_exist() -> None:
    [shell] = [example.text for example in examples(README, "sh")]
    for line in shell.splitlines():
        assert os.access(ROOT / line.split()[0], os.X_OK)
