"""Metrics as Prometheus reads them, with the parsers of prometheus_client."""

from typing import NamedTuple

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from tornado.httpclient import AsyncHTTPClient

OPENMETRICS = "application/openmetrics-text"
# What Prometheus 3 sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.3"
)


class Scrape(NamedTuple):
    """A page: its type, and the value of each series, such as `a_total{b="c"}`."""

    kind: str
    series: dict[str, float]


async def scrape(port: int, *, accept: str = PROMETHEUS, secret: str = "") -> Scrape:
    """Return the metrics of the admin port."""
    headers = {"Accept": accept, **({"Authorization": f"Bearer {secret}"} if secret else {})}
    answer = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/metrics", headers=headers)
    kind = answer.headers["Content-Type"]
    parse = parse_openmetrics if kind.startswith(OPENMETRICS) else parse_text
    samples = [sample for family in parse(answer.body.decode()) for sample in family.samples]
    series = {_name(sample.name, sample.labels): sample.value for sample in samples}
    assert len(series) == len(samples), "a series is there twice"
    return Scrape(kind, series)


def _name(name: str, labels: dict[str, str]) -> str:
    pairs = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{pairs}}}" if pairs else name
