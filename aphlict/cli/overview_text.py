"""An overview as text, for a terminal; and figures as text."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
MAX_LARGEST = 5  # clients, instances and channels
MAX_LINES = 8  # of the log


def describe_overview(overview: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of an overview, the most important ones first: a terminal may have no room for all."""
    at, state, node = clock(overview["time"]), overview["state"], overview["fingerprint"]
    yield f"{at}  {state}, node {node}, version {overview['version']}, for {duration(overview['uptime'])}"
    yield from _describe_figures(overview["figures"], overview["series"])
    yield from _describe_processes(overview["processes"], overview["processes_expected"])
    for peer in overview["peers"]:
        yield f"  peer         {describe_peer(peer)}"
    yield from describe_counts("closed", overview["closed"])
    yield from describe_counts("reached", overview["limits"])
    yield from describe_counts("rejected", overview["refused"])
    yield from _describe_certificates(overview["certificates"], overview["time"])
    yield from _describe_slow_clients(overview["slow_clients"])
    for event in overview["events"][-MAX_LINES:]:
        yield f"  log          {clock(event['time'])} {event['level']}, {event['process']}: {event['message']}"
    yield from _describe_largest(overview["instances"], overview["channels"])


def _describe_figures(figures: Mapping[str, Any], series: Mapping[str, Any]) -> Iterator[str]:
    transports = ", ".join(f"{count:,} {name}" for name, count in figures["connections"].items() if count)
    now = sum(figures["connections"].values())
    yield (
        f"  connections  {now:,}{f' ({transports})' if transports else ''}, limit {figures['connections_limit']:,},"
        f" {_count(figures['subscriptions'], 'subscription')}, {_last(series, 'closed'):.1f} closed a second"
    )
    yield (
        f"  messages     {_last(series, 'messages'):.1f} in and {_last(series, 'deliveries'):.1f} out a second;"
        f" {figures['messages']:,} in, {figures['deliveries']:,} out,"
        f" {_count(figures['duplicates'], 'duplicate')}, {figures['lost']:,} lost"
    )
    yield (
        f"  time         {_milliseconds(series, 'publish_time')} to publish,"
        f" {_milliseconds(series, 'delivery_time')} to deliver"
    )
    yield (
        f"  waiting      {mebibytes(figures['waiting_bytes'])} for {_count(figures['waiting_clients'], 'client')},"
        f" {figures['queued_deliveries']:,} deliveries queued"
    )
    yield (
        f"  history      {_count(figures['history_messages'], 'message')}, {mebibytes(figures['history_bytes'])};"
        f" resumed: {figures['recovered']:,} recovered, {figures['gap']:,} with a gap"
    )
    used = figures["descriptors_used_ratio"]
    yield f"  memory       {mebibytes(figures['memory'])}; {used:.1%} of the descriptors"


def _describe_processes(processes: Sequence[Mapping[str, Any]], expected: int) -> Iterator[str]:
    for each in processes:
        yield (
            f"  process      {each['name']} ({each['pid']}): {_count(each['connections'], 'connection')},"
            f" {mebibytes(each['memory'])}, {each['lag'] * 1000:.1f} ms behind"
        )
    if len(processes) < expected:
        yield f"  process      {expected - len(processes)} of {expected} did not respond"


def _describe_certificates(certificates: Sequence[Mapping[str, Any]], now: float) -> Iterator[str]:
    for each in certificates:
        left = each["expires"] - now
        expires = f"expires in {duration(left)}" if left > 0 else "has expired"
        yield f"  certificate  of port {each['port']} {expires}"


def _describe_slow_clients(clients: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for each in clients[:MAX_LARGEST]:
        subject = f" ({each['subject']})" if each["subject"] else ""
        yield (
            f"  slow         [{each['connection']}] {each['address']}{subject} at the {each['process']},"
            f" {each['transport']}: {mebibytes(each['waiting_bytes'])} wait"
        )


def _describe_largest(
    instances: Sequence[Mapping[str, Any]], channels: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    for each in instances[:MAX_LARGEST]:
        yield (
            f"  instance     {each['instance']}: {_count(each['connections'], 'connection')},"
            f" {_count(each['channels'], 'channel')}, {_count(each['messages'], 'message')}"
        )
    for each in channels[:MAX_LARGEST]:
        yield f"  channel      {each['channel']} ({each['instance']}): {_count(each['subscribers'], 'subscriber')}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _last(series: Mapping[str, Any], name: str) -> float:
    return float(series[name][-1]) if series[name] else 0.0


def _milliseconds(series: Mapping[str, Any], name: str) -> str:
    """Return the last mean."""
    last = series[name][-1] if series[name] else None
    return "-" if last is None else f"{last * 1000:.1f} ms"


def clock(at: float) -> str:
    """Return a Unix time as local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def describe_counts(label: str, counts: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each count that is not 0."""
    for name, count in counts.items():
        if count:
            yield f"  {label:<12} {name} ({'once' if count == 1 else f'{count:,} times'})"


def describe_peer(peer: Mapping[str, Any]) -> str:
    """Return the status of a peer."""
    down = f" for {duration(peer['down_for'])} ({peer['last_error']})" if peer["down_for"] is not None else ""
    url = f"{peer['protocol']}://{peer['host']}:{peer['port']}"
    return f"{url} {peer['state']}{down}, {peer['queued']:,} queued, {peer['sent']:,} sent"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units, such as `3 days 2 hours`."""
    parts = []
    for unit, size in UNITS:
        count, seconds = divmod(int(seconds), size)
        if count:
            parts.append(f"{count} {unit}{'s' if count > 1 else ''}")
    return " ".join(parts[:2]) or "less than a second"


def mebibytes(size: int) -> str:
    """Return a size in MiB."""
    return f"{size / 2**20:.1f} MiB"
