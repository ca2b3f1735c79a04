"""A system in a folder, on which the commands of the manual install Prometheus and its Alertmanager."""

import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docs.pages import ROOT
from tests.monitoring.mailbox import Mailbox
from tests.monitoring.prometheus import FILES, hastened
from tests.proxies.programs import put, running
from tests.support.installation import Installation
from tests.support.ports import free_ports
from tests.support.waiting import wait_until

SERVICES = ("prometheus", "prometheus-alertmanager")
NOTED = ("apt-get", "systemctl", "editor", "ssh")  # commands that are only noted


class System:
    """A folder in place of / for the commands of the manual, and what they install."""

    def __init__(self, folder: Path, server: Installation, mail: Mailbox) -> None:
        self.etc = folder / "etc"
        for name in SERVICES:
            put(self.etc / "default", name, 'ARGS=""\n')
        for name in ("prometheus.yml", "alertmanager.yml", "consoles/README.consoles"):
            put(self.etc / "prometheus", name, "Debian's\n")
        for name in NOTED:
            put(folder / "bin", name, f'#!/bin/sh\necho "{name} $*" >> {folder}/noted\n').chmod(0o755)
        self._folder = folder
        self._services = dict(zip(SERVICES, free_ports(2), strict=True))
        self._ports = {
            "22281": server.admin_port,
            "9090": self._services["prometheus"],
            "9093": self._services["prometheus-alertmanager"],
            "25": mail.port,
        }

    def run(self, commands: str) -> str:
        """Run commands, and return their output with the ports of the manual."""
        commands = commands.replace("/opt/aphlict", str(ROOT)).replace("/etc/", f"{self.etc}/")
        done = subprocess.run(
            ["sh", "-ec", self._with_ports(commands)],
            env={**os.environ, "PATH": f"{self._folder}/bin:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            cwd=FILES,
        )
        assert done.returncode == 0, done
        output = done.stdout
        for port, own in self._ports.items():
            output = output.replace(f":{own}", f":{port}")
        return output

    @contextmanager
    def started(self, prometheus: str, alertmanager: str) -> Iterator[None]:
        """Run both services with the installed files, at the pace of the tests."""
        etc = self.etc / "prometheus"
        for name in ("prometheus.yml", "alertmanager.yml", "aphlict/alerts.yml"):
            put(etc, name, hastened(self._with_ports((etc / name).read_text())))
        folders = [f"--web.console.templates={etc}/consoles", f"--web.console.libraries={etc}/consoles"]
        with (
            self._service(prometheus, "prometheus", f"--storage.tsdb.path={self._folder}/metrics", *folders),
            self._service(alertmanager, "alertmanager", f"--storage.path={self._folder}/alerts"),
        ):
            yield

    @contextmanager
    def _service(self, program: str, name: str, *options: str) -> Iterator[None]:
        service = Path(program).name
        found = re.fullmatch(r'ARGS="(.+)"\n', (self.etc / "default" / service).read_text())
        assert found, "the manual does not say where it listens"
        configuration = f"--config.file={self.etc}/prometheus/{name}.yml"
        command = [program, configuration, *self._with_ports(found[1]).split(" "), *options]
        with running(command, self._folder, self._services[service]):
            wait_until(lambda: self.answers(service, "/-/ready"), service)
            yield

    def answers(self, service: str, path: str) -> bool:
        """Whether a service responds with 200."""
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self._services[service]}{path}", timeout=10).close()
        except OSError:
            return False
        return True

    def noted(self) -> list[str]:
        """Return what was asked of the system."""
        return (self._folder / "noted").read_text().splitlines()

    def _with_ports(self, text: str) -> str:
        return re.sub(
            r"(?<=\blocalhost:|127\.0\.0\.1:)\d+", lambda port: str(self._ports.get(port[0], port[0])), text
        )
