"""The alerts as a file, and their sections in the manual."""

import re
import subprocess
from pathlib import Path
from textwrap import indent

from tests.docs.pages import ROOT, examples
from tests.docs.test_links import anchors
from tests.monitoring.prometheus import ALERTS, FILES, alert_names, hastened
from tests.proxies.programs import require

PAGE = ROOT / "docs/monitoring.md"


def entries(key: str) -> list[str]:
    """Return the values of a key of all alerts."""
    return re.findall(rf"^ +{key}: (.+)$", ALERTS, re.MULTILINE)


def test_promtool_accepts_the_alerts() -> None:
    promtool = require("promtool", "prometheus")
    done = subprocess.run(
        [promtool, "check", "rules", FILES / "alerts.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done


def test_promtool_accepts_the_jobs_of_the_manual(tmp_path: Path) -> None:
    promtool = require("promtool", "prometheus")
    plain, secret, tls = [each.text for each in examples(PAGE, "yaml")]
    for number, text in enumerate((plain, secret, plain + indent(tls, "    "))):
        path = tmp_path / f"{number}.yml"
        path.write_text(text)
        done = subprocess.run(
            [promtool, "check", "config", "--syntax-only", path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done


def test_each_alert_says_what_to_do() -> None:
    names = alert_names()
    assert len(set(names)) == len(names)
    links = [link.partition("#") for link in entries("runbook_url")]
    assert {page for page, _, _ in links} == {"docs/monitoring.md"}
    assert [anchor for _, _, anchor in links] == [name.lower() for name in names]
    assert set(names) == set(re.findall(r"^### (Aphlict\w+)$", PAGE.read_text(), re.MULTILINE))
    assert {name.lower() for name in names} <= anchors(PAGE)
    assert len(entries("summary")) == len(entries("description")) == len(names)
    assert len(entries("severity")) == len(names)
    assert set(entries("severity")) == {"critical", "warning"}


def test_a_hastened_rule_differs_in_its_durations_only() -> None:
    rule = "expr: rate(a_5m[5m]) > 15\n for: 1h\n scrape_interval: 15s\n text: for 5m"
    assert hastened(rule) == (
        "expr: rate(a_5m[10000ms]) > 15\n for: 120000ms\n scrape_interval: 500ms\n text: for 5m"
    )
