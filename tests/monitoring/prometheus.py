"""A real Prometheus with the files of conf/prometheus."""

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.proxies.programs import free_port, put, require, running, workplace
from tests.proxies.shipped import CONF, changed
from tests.support.waiting import wait_until

FILES = CONF / "prometheus"
ALERTS = (FILES / "alerts.yml").read_text()
INTERVAL = 15  # seconds between two scrapes
PACE = 30  # a minute of the alerts takes two seconds in the tests
SECONDS = {"s": 1, "m": 60, "h": 3600}
DURATION = re.compile(r"(?<=for: |val: |ait: )(\d+)([smh])\b|(?<=\[)(\d+)([smh])(?=\])")  # interval, wait
# A target that takes long to scrape.
SLOW_JOB = """
  - job_name: slow
    scrape_interval: 2s
    scrape_timeout: 2s
    relabel_configs: [{target_label: job, replacement: aphlict}]
    static_configs: [{targets: %s}]
"""


class Series(NamedTuple):
    """One result of a query."""

    labels: dict[str, str]
    value: float


def hastened(text: str) -> str:
    """Divide all durations of rules, or of a configuration, by PACE; leave everything else as it is."""

    def shorten(match: "re.Match[str]") -> str:
        count, unit = [group for group in match.groups() if group]
        return f"{int(count) * SECONDS[unit] * 1000 // PACE}ms"

    return DURATION.sub(shorten, text)


def alert_names() -> list[str]:
    """Return the names of all alerts."""
    return re.findall(r"^ +- alert: (\w+)$", ALERTS, re.MULTILINE)


def configuration(targets: Sequence[str], slow_targets: Sequence[str], own: str) -> str:
    """Return prometheus.yml with these targets and its own address."""
    changes = {
        '["localhost:22281"]': json.dumps(targets),
        '["localhost:9090"]': json.dumps([own]),
        '["localhost:9093"]': "[]",
    }
    return hastened(changed((FILES / "prometheus.yml").read_text(), changes)) + SLOW_JOB % json.dumps(
        slow_targets
    )


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        """Whether it answers queries: it listens before that."""
        try:
            urllib.request.urlopen(f"{self.url}/-/ready", timeout=10).close()
        except OSError:
            return False
        return True

    def get(self, path: str) -> Any:
        """Return the data that a path of the API responds with."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=10) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[Series]:
        """Return what an expression has now."""
        data = self.get(f"query?query={urllib.parse.quote(expression, safe='')}")
        assert data["resultType"] == "vector", expression
        return [Series(each["metric"], float(each["value"][1])) for each in data["result"]]

    def has_fired(self, alert: str, instance: str | None = None) -> bool:
        """Whether an alert fires or has fired, for an instance if it is one of an instance."""
        selector = f'ALERTS{{alertname="{alert}", alertstate="firing"}}[1h]'
        found = [series.labels for series in self.query(f"last_over_time({selector})")]
        return any(instance is None or labels["instance"] == instance for labels in found)


@contextmanager
def prometheus(targets: Sequence[str] = (), slow_targets: Sequence[str] = ()) -> Iterator[Prometheus]:
    """Run Debian's Prometheus with the files of conf/prometheus, all durations divided by PACE."""
    program, port = require("prometheus", "prometheus"), free_port()
    with workplace() as folder:
        put(folder, "prometheus.yml", configuration(targets, slow_targets, f"localhost:{port}"))
        put(folder, "aphlict/alerts.yml", hastened(ALERTS))
        put(folder, "consoles/aphlict.html", (FILES / "aphlict.html").read_text())
        options = [
            f"--config.file={folder}/prometheus.yml",
            f"--web.listen-address=127.0.0.1:{port}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.console.templates={folder}/consoles",
            f"--web.console.libraries={folder}/consoles",
        ]
        with running([program, *options], folder, port):
            made = Prometheus(port)
            wait_until(made.is_ready, "Prometheus")
            yield made
