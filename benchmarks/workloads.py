"""The workloads, and what of each run is a figure."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.servers import LOAD_CPU, Target, measure

FLOOR_RATIO = 1.2
SUBSCRIBE = '{"command":"subscribe","data":["CH-%c"],"id":1}'
REPLAY = '{"command":"replay","data":{"age":60000},"id":2}'


class Figure(NamedTuple):
    """One measured value of one run."""

    what: str
    value: float
    unit: str
    target: float | None = None  # at most this
    always: bool = False  # the target is for the worst run, not for the median
    beside_floor: bool = False  # whether the floor's figure is worth a ratio
    ratio: float | None = None  # at most so many times the floor


ONE_OF = "one publish to one browser of {:,}"
Work = Callable[[Path, Target, float], list[Figure]]


def fan_out(browsers: int) -> Work:
    """All browsers on one channel."""

    def work(tools: Path, target: Target, scale: float) -> list[Figure]:
        messages = max(5, round(600_000 / browsers * min(1.0, scale * 3)))
        result = measure(tools, target, "--conns", round(browsers * scale), "--messages", messages)
        return [
            Figure(
                f"{browsers:,} browsers, 1 channel: CPU a delivery",
                result["server_cpu_us_per_delivery"], "µs", beside_floor=True, ratio=FLOOR_RATIO,
            ),
            Figure(
                f"{browsers:,} browsers, 1 channel: of that in user space",
                result["server_user_us_per_delivery"], "µs", 1.0,
            ),
            Figure(f"{browsers:,} browsers, 1 channel: deliveries", result["deliveries_per_s"], "/s"),
        ]  # fmt: skip

    return work


def steady(tools: Path, target: Target, scale: float) -> list[Figure]:
    """Messages to all at a rate that leaves the server idle half the time: how long each takes."""
    count, messages = round(2000 * scale), max(5, round(100 * scale))
    result = measure(tools, target, "--conns", count, "--messages", messages, "--rate", 25)
    return _latency("2,000 browsers, 1 channel, 25 messages a second", result)


def _latency(what: str, result: dict[str, Any]) -> list[Figure]:
    return [
        Figure(f"{what}: latency {name}", result["latency_ms"][name], "ms", beside_floor=True)
        for name in ("p50", "p99", "p999")
    ]


def many_channels(tools: Path, target: Target, scale: float) -> list[Figure]:
    """10,000 browsers on 1,000 channels."""
    crowd = ("--conns", round(10_000 * scale), "--channels", round(1000 * scale))
    options = (*crowd, "--messages", round(20_000 * scale), "--window", 8)
    result = measure(tools, target, *options)
    what = "10,000 browsers on 1,000 channels"
    cpu, user = result["server_cpu_us_per_delivery"], result["server_user_us_per_delivery"]
    return [
        Figure(f"{what}: CPU a delivery, publishing included", cpu, "µs", 12),
        Figure(f"{what}: of that in user space", user, "µs"),
        *_latency(what, result),
    ]


def cpu_a_publish(browsers: int) -> str:
    """The name of the figure."""
    return f"{ONE_OF.format(browsers)}: CPU a publish"


def single(browsers: int) -> Work:
    """One publish to one browser, beside so many."""

    def work(tools: Path, target: Target, scale: float) -> list[Figure]:
        count = max(10, round(browsers * scale))
        options = ("--conns", count, "--channels", count, "--messages", round(10_000 * scale))
        result = measure(tools, target, *options)
        return [
            Figure(cpu_a_publish(browsers), result["server_cpu_us_per_publish"], "µs", 90),
            *_latency(ONE_OF.format(browsers), result),
        ]

    return work


def batches(tools: Path, target: Target, scale: float) -> list[Figure]:
    """Lists of 100 messages in one POST."""
    posts = round(500 * scale)
    result = measure(tools, target, "--conns", 1, "--messages", posts, "--batch", 100)
    cpu = result["server_cpu_us_per_publish"] / 100
    return [Figure("lists of 100 messages, to one browser: CPU a message", cpu, "µs", 15)]


def connects(tools: Path, target: Target, scale: float) -> list[Figure]:
    """Connecting and subscribing, each its own channel."""
    count = round(10_000 * scale)
    options = (
        "--conns",
        count,
        "--channels",
        count,
        "--messages",
        0,
        "--open",
        SUBSCRIBE,
        "--open-replies",
        1,
    )
    result = measure(tools, target, *options)
    return [
        Figure("connect and subscribe: CPU", result["server_cpu_us_per_conn"], "µs", 75),
        Figure("an idle connection with a channel of its own: memory", result["server_kb_per_conn"], "KB", 2),
    ]


def tls(tools: Path, target: Target, scale: float) -> list[Figure]:
    """10,000 browsers on one channel over TLS."""
    count = round(10_000 * scale)
    channels = ("--channels", 1, "--messages", max(5, round(50 * scale)))
    result = measure(tools, target, "--conns", count, *channels, "--open", SUBSCRIBE, "--open-replies", 1)
    return [
        Figure(
            "10,000 browsers, TLS (P-256): connect and subscribe, CPU",
            result["server_cpu_us_per_conn"],
            "µs",
            350,
        ),
        Figure("10,000 browsers, TLS: memory of a connection", result["server_kb_per_conn"], "KB", 16),
        Figure("10,000 browsers, TLS: CPU a delivery", result["server_cpu_us_per_delivery"], "µs", 10.5),
    ]


def health(tools: Path, target: Target, scale: float) -> list[Figure]:
    """`…/status` asked every 20 ms beside large fan-outs."""
    seen: list[float] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            begun = time.perf_counter()
            with socket.create_connection(("127.0.0.1", target.port), 10) as sock:
                sock.sendall(b"GET /ws/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                while sock.recv(4096):
                    pass
            seen.append((time.perf_counter() - begun) * 1000)
            ended.wait(max(0.0, 0.02 - (time.perf_counter() - begun)))

    asking = threading.Thread(target=ask)
    options = ("--conns", round(10_000 * scale), "--messages", max(5, round(100 * scale)), "--rate", 5)
    command = [
        "taskset",
        "-c",
        str(LOAD_CPU),
        str(tools / "wsload"),
        "--port",
        str(target.port),
        "--pub-port",
    ]
    loading = subprocess.Popen(
        [*command, str(target.admin_port), *map(str, options)], stdout=subprocess.DEVNULL
    )
    asking.start()
    loading.wait()
    ended.set()
    asking.join()
    seen.sort()
    p99 = seen[int((len(seen) - 1) * 0.99)]
    return [Figure("…/status beside fan-outs to 10,000, five a second: p99", p99, "ms", 15)]


def comeback(tools: Path, target: Target, scale: float) -> list[Figure]:
    """10,000 browsers gone at once, and back at once, each subscribing and replaying."""
    count = round(10_000 * scale)
    everyone = ("--conns", count, "--channels", count)
    # The first run fills the history with a message for every second channel, and its browsers go all at once.
    kept = min(4000, count // 2)
    measure(tools, target, *everyone, "--messages", kept, "--window", 32)
    opening = ("--open", SUBSCRIBE, "--open", REPLAY, "--open-replies", 2, "--in-flight", 2000)
    result = measure(tools, target, *everyone, "--messages", 0, *opening)
    back = "10,000 browsers come back, subscribe and replay"
    return [
        Figure(f"{back}: until all are served", result["connect_s"], "s", 3),
        Figure(f"{back}: refused or dropped", result["failed"] + result["closed_early"], "", 0, always=True),
        Figure(f"{back}: messages missing or too many", abs(result["deliveries"] - kept), "", 0, always=True),
    ]


PLAIN: Sequence[Work] = (
    fan_out(2000), fan_out(10_000), steady, many_channels, single(100), single(10_000), batches, connects, health,
    comeback,
)  # fmt: skip
FLOOR: Sequence[Work] = (fan_out(2000), fan_out(10_000), steady)
