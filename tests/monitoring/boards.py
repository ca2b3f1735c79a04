"""The two boards, as data: that of Grafana, and the page for Prometheus itself."""

import json
import re
from html.parser import HTMLParser
from typing import Any, NamedTuple

from tests.proxies.shipped import CONF

GRAFANA: dict[str, Any] = json.loads((CONF / "grafana/aphlict.json").read_text())
PAGE = (CONF / "prometheus/aphlict.html").read_text()
ALERTS = re.search(r"query `(ALERTS[^`]*)`", PAGE)


class Target(NamedTuple):
    """A line, or several, of a panel. The legend has labels as `{{label}}`."""

    legend: str
    expression: str


class Panel(NamedTuple):
    """A panel with its row."""

    row: str
    title: str
    description: str
    unit: str
    targets: tuple[Target, ...]


def grafana_panels() -> list[Panel]:
    """Return the panels of Grafana's board that draw lines."""
    panels, row = [], ""
    for panel in GRAFANA["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        elif panel["type"] == "timeseries":
            targets = tuple(Target(each["legendFormat"], each["expr"]) for each in panel["targets"])
            unit = panel["fieldConfig"]["defaults"]["unit"]
            panels.append(Panel(row, panel["title"], panel["description"], unit, targets))
    return panels


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.panels: list[Panel] = []
        self._row = self._text = ""
        self._figure: dict[str, str | None] = {}
        self._title = ""
        self._legend = ""
        self._targets: list[Target] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._text = ""
        if tag == "figure":
            self._figure, self._targets = dict(attrs), []
        elif tag == "code":
            self._legend = str(dict(attrs)["data-legend"])

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "h2":
            self._row = self._text
        elif tag == "figcaption":
            self._title = self._text
        elif tag == "code":
            legend = self._legend.replace("[[", "{{").replace("]]", "}}")
            self._targets.append(Target(legend, self._text))
        elif tag == "figure":
            description, unit = self._figure.get("title") or "", str(self._figure["data-unit"])
            self.panels.append(Panel(self._row, self._title, description, unit, tuple(self._targets)))


def page_panels() -> list[Panel]:
    """Return the panels of the page."""
    page = _Page()
    page.feed(PAGE)
    return page.panels
