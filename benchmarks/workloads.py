"""The workloads and their figures."""

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
    always: bool = False  # the target applies to the worst run rather than to the median
    beside_floor: bool = False  # print the ratio to the floor
    ratio: float | None = None  # to the floor, at most


ONE_OF = "one publish to one client of {:,}"
Work = Callable[[Path, Target, float], list[Figure]]


def fan_out(clients: int) -> Work:
    """All clients on one channel."""

    def work(tools: Path, target: Target, scale: float) -> list[Figure]:
        messages = max(5, round(600_000 / clients * min(1.0, scale * 3)))
        result = measure(tools, target, "--conns", round(clients * scale), "--messages", messages)
        return [
            Figure(
                f"{clients:,} clients, 1 channel: CPU per delivery",
                result["server_cpu_us_per_delivery"], "µs", beside_floor=True, ratio=FLOOR_RATIO,
            ),
            Figure(
                f"{clients:,} clients, 1 channel: of that in user space",
                result["server_user_us_per_delivery"], "µs", 1.0,
            ),
            Figure(f"{clients:,} clients, 1 channel: deliveries", result["deliveries_per_s"], "/s"),
        ]  # fmt: skip

    return work


def steady(tools: Path, target: Target, scale: float) -> list[Figure]:
    """Latency of messages to all clients, at a rate that leaves the server idle half the time."""
    count, messages = round(2000 * scale), max(5, round(100 * scale))
    result = measure(tools, target, "--conns", count, "--messages", messages, "--rate", 25)
    return _latency("2,000 clients, 1 channel, 25 messages per second", result)


def _latency(what: str, result: dict[str, Any]) -> list[Figure]:
    return [
        Figure(f"{what}: latency {name}", result["latency_ms"][name], "ms", beside_floor=True)
        for name in ("p50", "p99", "p999")
    ]


def many_channels(tools: Path, target: Target, scale: float) -> list[Figure]:
    """10,000 clients on 1,000 channels."""
    clients = ("--conns", round(10_000 * scale), "--channels", round(1000 * scale))
    options = (*clients, "--messages", round(20_000 * scale), "--window", 8)
    result = measure(tools, target, *options)
    what = "10,000 clients on 1,000 channels"
    cpu, user = result["server_cpu_us_per_delivery"], result["server_user_us_per_delivery"]
    return [
        Figure(f"{what}: CPU per delivery, publishing included", cpu, "µs", 12),
        Figure(f"{what}: of that in user space", user, "µs"),
        *_latency(what, result),
    ]


def cpu_per_publish(clients: int) -> str:
    """Return the name of the figure."""
    return f"{ONE_OF.format(clients)}: CPU per publish"


def single(clients: int) -> Work:
    """Messages to one client among many."""

    def work(tools: Path, target: Target, scale: float) -> list[Figure]:
        count = max(10, round(clients * scale))
        options = ("--conns", count, "--channels", count, "--messages", round(10_000 * scale))
        result = measure(tools, target, *options)
        return [
            Figure(cpu_per_publish(clients), result["server_cpu_us_per_publish"], "µs", 90),
            *_latency(ONE_OF.format(clients), result),
        ]

    return work


def batches(tools: Path, target: Target, scale: float) -> list[Figure]:
    """Lists of 100 messages in one POST."""
    posts = round(500 * scale)
    result = measure(tools, target, "--conns", 1, "--messages", posts, "--batch", 100)
    cpu = result["server_cpu_us_per_publish"] / 100
    return [Figure("lists of 100 messages, to one client: CPU per message", cpu, "µs", 15)]


def connects(tools: Path, target: Target, scale: float) -> list[Figure]:
    """Connect and subscribe, each client to its own channel."""
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
    """10,000 clients on one channel over TLS."""
    count = round(10_000 * scale)
    channels = ("--channels", 1, "--messages", max(5, round(50 * scale)))
    result = measure(tools, target, "--conns", count, *channels, "--open", SUBSCRIBE, "--open-replies", 1)
    return [
        Figure(
            "10,000 clients, TLS (P-256): connect and subscribe, CPU",
            result["server_cpu_us_per_conn"],
            "µs",
            350,
        ),
        Figure("10,000 clients, TLS: memory of a connection", result["server_kb_per_conn"], "KB", 16),
        Figure("10,000 clients, TLS: CPU per delivery", result["server_cpu_us_per_delivery"], "µs", 10.5),
    ]


def health(tools: Path, target: Target, scale: float) -> list[Figure]:
    """Latency of `…/status` during large fan-outs."""
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
    return [Figure("…/status during fan-outs to 10,000, five per second: p99", p99, "ms", 15)]


def comeback(tools: Path, target: Target, scale: float) -> list[Figure]:
    """10,000 clients disconnect and reconnect together; each subscribes and replays."""
    count = round(10_000 * scale)
    all_clients = ("--conns", count, "--channels", count)
    # The first run fills the history with a message for every second channel; its clients disconnect together.
    kept = min(4000, count // 2)
    measure(tools, target, *all_clients, "--messages", kept, "--window", 32)
    opening = ("--open", SUBSCRIBE, "--open", REPLAY, "--open-replies", 2, "--in-flight", 2000)
    result = measure(tools, target, *all_clients, "--messages", 0, *opening)
    back = "10,000 clients reconnect, subscribe and replay"
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
