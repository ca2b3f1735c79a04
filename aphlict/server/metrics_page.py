"""The page of `GET /metrics`: text or OpenMetrics, as prometheus_client writes them."""

import platform
import re
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector, CollectorRegistry

from aphlict import __version__
from aphlict.core.metrics import METRICS, SUM, Metric, Samples, bounds

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_WEIGHT = re.compile(r";[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*(?:;|$)")


def render(samples: Samples, accept: str) -> tuple[str, bytes]:
    """Return the type of the page, and the page in the format that the `Accept` of a request prefers."""
    registry = CollectorRegistry()
    registry.register(_Samples(samples))
    if prefers_openmetrics(accept):
        body: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
        return OPENMETRICS, body
    return TEXT, generate_latest(registry)


def prefers_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics is listed, and not less preferred than plain text."""
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        weight = _WEIGHT.search(part)
        weights[part.partition(";")[0].strip(" \t")] = float(weight[1]) if weight else 1.0
    openmetrics = weights.get("application/openmetrics-text", 0.0)
    return openmetrics > 0 and openmetrics >= weights.get("text/plain", 0.0)


class _Samples(Collector):
    """Passes samples to prometheus_client."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Family]:
        """Yield one family for each metric that has samples."""
        versions = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily("aphlict_build", "Versions of the server and of Python", versions)
        for metric in METRICS:
            values = self._samples.get(metric.title, {})
            if values or metric.values:
                yield _family(metric, values)


def _family(metric: Metric, values: dict[str, float]) -> Family:
    if metric.kind == "histogram":
        return _histogram_family(metric, values)
    labels = [metric.label] if metric.label else []
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=labels)
    for label, value in {**dict.fromkeys(metric.values, 0.0), **values}.items():
        family.add_metric([label] if labels else [], value)
    return family


def _histogram_family(metric: Metric, values: dict[str, float]) -> Family:
    names = bounds(metric)
    counts = accumulate(values.get(name, 0.0) for name in names)
    family = HistogramMetricFamily(metric.name, metric.help)
    family.add_metric([], list(zip(names, counts, strict=True)), values.get(SUM, 0.0))
    return family
