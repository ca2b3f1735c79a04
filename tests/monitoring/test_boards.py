"""The boards: the same panels on both, and data in all of them."""

import math
import subprocess
import urllib.request
from collections.abc import Iterator
from itertools import combinations
from urllib.parse import quote

import pytest

from tests.browser.chromium import Chromium
from tests.browser.driving import Tab
from tests.monitoring.boards import ALERTS, GRAFANA, Target, grafana_panels, page_panels
from tests.monitoring.scene import HEALTHY, Scene
from tests.proxies.programs import require
from tests.support.waiting import wait_until

PANELS = grafana_panels()
TARGETS = [
    pytest.param(target, id=f"{panel.title}: {target.legend}") for panel in PANELS for target in panel.targets
]
# Panels of healthy servers that are empty, as nothing was reached or refused.
EMPTY = {"Limits reached", "Requests refused"}


def test_both_boards_have_the_same_panels() -> None:
    assert page_panels() == PANELS
    assert ALERTS
    assert [panel["targets"][0]["expr"] for panel in GRAFANA["panels"] if panel["type"] == "table"] == [
        ALERTS[1]
    ]


def test_the_board_of_grafana_depends_on_no_installation() -> None:
    panels = GRAFANA["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    queries = [target for panel in panels for target in panel.get("targets", ())]
    sources = [each["datasource"] for each in (*queries, *panels) if each.get("type") != "row"]
    sources += [each["datasource"] for each in GRAFANA["templating"]["list"] if each["type"] == "query"]
    assert {source["uid"] for source in sources} == {"${datasource}"}


def test_no_panel_of_grafana_covers_another() -> None:
    places = [panel["gridPos"] for panel in GRAFANA["panels"]]
    assert max(place["x"] + place["w"] for place in places) <= 24
    for one, other in combinations(places, 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )


@pytest.mark.parametrize("target", TARGETS)
def test_an_expression_returns_data(scene: Scene, target: Target) -> None:
    expression = target.expression.replace("$instance", ".+").replace("$__rate_interval", "1h")
    found = scene.prometheus.query(expression)
    assert [series for series in found if not math.isnan(series.value)]
    labels = {name for name in ("instance", "transport", "peer") if f"{{{{{name}}}}}" in target.legend}
    assert all(labels <= set(series.labels) for series in found)


def test_alerts_are_listed(scene: Scene) -> None:
    assert ALERTS
    wait_until(lambda: scene.prometheus.query(ALERTS[1]), "alerts")


@pytest.mark.parametrize("name", [*HEALTHY, "hung edge"])
def test_promtool_finds_nothing_wrong_with_the_metrics(scene: Scene, name: str) -> None:
    promtool = require("promtool", "prometheus")
    with urllib.request.urlopen(f"http://{scene.target(name)}/metrics", timeout=10) as response:
        page = response.read()
    assert b"_certificate_" in page or name != "second"
    done = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = Chromium(require("chromium", "chromium"), tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def drawn(tab: Tab) -> list[str]:
    """Wait until nothing is loading, and return the titles of the panels with a graph."""
    wait_until(lambda: tab.evaluate("!document.querySelector('.prom_graph_loading')"), "graphs", timeout=30)
    titles = tab.evaluate(
        "[...document.querySelectorAll('figure')].filter((each) => each.querySelector('svg path'))"
        ".map((each) => each.querySelector('figcaption').textContent)"
    )
    assert isinstance(titles, list)
    return titles


def test_the_page_of_all_nodes(scene: Scene, chromium: Chromium) -> None:
    profile = chromium.new_profile()
    tab = profile.new_tab(f"{scene.prometheus.url}/consoles/aphlict.html")
    assert drawn(tab) == [panel.title for panel in PANELS]
    text = tab.evaluate("document.body.innerText")
    assert all(scene.target(name) in text for name in scene.servers)
    profile.close()


def test_the_page_of_one_node(scene: Scene, chromium: Chromium) -> None:
    profile = chromium.new_profile()
    page = f"{scene.prometheus.url}/consoles/aphlict.html"
    tab = profile.new_tab(page)
    tab.open(f"{page}?instance={scene.target('first')}")
    assert set(drawn(tab)) | EMPTY | {"Certificates"} == {panel.title for panel in PANELS}
    assert "Certificates" not in drawn(tab), "only the second has one"
    profile.close()


@pytest.mark.parametrize("value", ['"><script>x="', '<b>"+alert(1)+"', "[::1]:22281", "a\\d\"'`"])
def test_the_page_escapes_its_parameter(scene: Scene, chromium: Chromium, value: str) -> None:
    profile = chromium.new_profile()
    tab = profile.new_tab(f"{scene.prometheus.url}/consoles/aphlict.html?instance={quote(value, safe='')}")
    assert tab.evaluate("document.body.dataset.instance") == value
    assert drawn(tab) == []
    assert set(
        tab.evaluate("[...document.querySelectorAll('.prom_graph_error')].map((e) => e.innerText)")
    ) == {"No timeseries returned"}
    profile.close()
