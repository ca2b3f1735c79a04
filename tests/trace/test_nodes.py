"""Traces over several nodes and processes, and over ones that fail."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from aphlict.core.message import parse_body
from tests.cluster.nodes import FakeNode, NodeJsServer, reply
from tests.support.browsing import listening_to
from tests.support.installation import Installation, installed
from tests.support.nodes import RunningNode, has_all, listening, running_cluster, running_node, subscribed
from tests.support.waiting import eventually, eventually_async, wait_until
from tests.trace.staging import SlowClient, clients, connection, left, trace

M = {"subscribers": ["a"], "uniqueID": "m"}


def by_code(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The reports of the nodes; none has the code of another."""
    found = {node["code"]: node for node in answer["nodes"]}
    assert len(found) == len(answer["nodes"])
    return found


async def arrived(*nodes: RunningNode, count: int = 1) -> None:
    """Wait until nodes have so many messages."""
    await eventually_async(lambda: has_all(nodes, count), "the messages")


async def test_every_node_reports_its_clients_whichever_is_asked() -> None:
    async with running_cluster(3) as nodes:
        one, two, three = nodes
        browsers = [await subscribed(node.url(), "a") for node in (one, two, two)]
        bystander = await subscribed(three.url(), "b")
        await one.publish(M)
        await arrived(*nodes)
        for asked in nodes:
            answer = await trace(asked, "m")
            assert answer["found"] is True
            assert [node["code"] for node in answer["nodes"]] == ["responded"] * 3
            assert answer["nodes"][0]["fingerprint"] == asked.node.fingerprint
            found = {node["fingerprint"]: node["messages"][0] for node in answer["nodes"]}
            assert found[one.node.fingerprint]["clients"] == {"written": 1}
            assert found[two.node.fingerprint]["clients"] == {"written": 2}
            assert found[three.node.fingerprint]["clients"] == {"not_subscribed": 1}
            assert [each["is_own"] for name, each in found.items() if name == one.node.fingerprint] == [True]
            assert found[two.node.fingerprint]["origin_node"] == one.node.fingerprint
        for browser in (*browsers, bystander):
            await browser.close()


async def test_a_node_that_is_asked_by_another_asks_no_others() -> None:
    async with running_cluster(2) as (one, _):
        await one.publish(M)
        _, answer = await one.ask("/trace?id=m", headers={"X-Aphlict-Node": "another"})
        assert [node["fingerprint"] for node in answer["nodes"]] == [one.node.fingerprint]


async def test_a_failure_at_another_node() -> None:
    async with running_cluster(2) as (one, two):
        slow = await SlowClient(two).subscribe("a")
        gone = await subscribed(two.url(), "a")
        await left(two, gone)
        number = 0
        while not two.node.server.context.buffer_budget.used:
            await one.publish({"subscribers": ["a"], "uniqueID": f"m{number}", "text": "x" * 65_536})
            number += 1
            await arrived(two, count=number)
            assert number < 200
        answer = await trace(one, f"m{number - 1}")
        assert clients(answer, 1) == {"waiting": 1, "client_left": 1}
        assert {each["code"] for each in answer["nodes"][1]["connections"]} == {"waiting", "client_left"}
        slow.close()


async def test_an_unreachable_node() -> None:
    free = listening()
    port = free.getsockname()[1]
    free.close()
    async with running_node(cluster=[{"host": "127.0.0.1", "port": port}]) as node:
        await node.publish(M)
        found = by_code(await trace(node, "m"))
        assert found["node_unreachable"]["address"] == f"http://127.0.0.1:{port}"
        assert found["node_unreachable"]["error_code"] == "peer_unreachable"
        assert found["node_unreachable"]["queued"] is True
        assert found["responded"]["messages"]


async def test_a_node_that_hangs() -> None:
    async with (
        FakeNode("hung").start() as hung,
        running_node(cluster=[{"host": "127.0.0.1", "port": hung.port}]) as node,
    ):
        await eventually(lambda: hung.looks, "the first request")
        hung.is_hung = True
        found = by_code(await trace(node, "m"))
        assert found["node_unreachable"]["error_code"] == "peer_timeout"


async def test_servers_that_cannot_trace() -> None:
    async with FakeNode("older").start() as older:
        older.respond = lambda request: (
            reply(404, error="no", code="not_found") if "trace" in request.path else None
        )
        async with running_node(cluster=[{"host": "127.0.0.1", "port": older.port}]) as node:
            await node.publish(M)
            assert by_code(await trace(node, "m"))["node_without_trace"]["fingerprint"] in ("", "older")


async def test_a_response_that_is_none() -> None:
    async with (
        NodeJsServer("nodejs").start() as other,
        running_node(cluster=[{"host": "127.0.0.1", "port": other.port}]) as node,
    ):
        await node.publish(M)
        assert by_code(await trace(node, "m"))["node_unreachable"]["error_code"] == "peer_bad_response"


async def test_a_node_that_started_later() -> None:
    sockets = [(listening(), listening()) for _ in range(2)]
    cluster = [{"host": "127.0.0.1", "port": admin.getsockname()[1]} for _, admin in sockets]
    async with running_node(sockets=sockets[0]) as alone:
        await alone.publish(M)
        async with running_node(sockets=sockets[1], cluster=cluster) as late:
            found = by_code(await trace(late, "m"))
            assert found["message_missing"]["fingerprint"] == late.node.fingerprint
            assert found["message_missing"]["started"] > found["responded"]["messages"][0]["at"]
            assert found["responded"]["messages"][0]["uniqueID"] == "m"


async def test_a_message_that_was_published_to_two_nodes() -> None:
    async with running_cluster(2) as (one, two):
        for node in (one, two):  # before either has forwarded it
            [message], _ = parse_body(json.dumps(M).encode(), "default")
            node.node.publish([message], lambda receipts: None)

        async def has_copies() -> bool:
            nodes = (await trace(one, "m"))["nodes"]
            return all(each["copies"] for node in nodes for each in node["messages"])

        await eventually_async(has_copies, "the message of the other node")
        await one.publish(M)
        answer = await trace(two, "m")
        assert [node["message"] for node in answer["nodes"]] == ["found", "duplicate"]


def ask(server: Installation, query: str) -> dict[str, Any]:
    answer = server.answers(f"/trace?{query}")
    assert isinstance(answer, dict)
    return answer


def test_all_processes_of_a_server(tmp_path: Path) -> None:
    with installed(tmp_path, workers=2) as server:
        server.start()
        browsers = []
        try:
            for _ in range(12):
                browsers.append(context := listening_to(server.client_port, "a"))
                context.__enter__()
            server.publish("a", uniqueID="m")
            answer = ask(server, "id=m&connections=1")
            [node] = answer["nodes"]
            assert (node["code"], node["processes"]) == ("responded", 3)
            assert clients(answer) == {"written": 12}
            assert node["messages"][0]["delivered_at"] >= node["messages"][0]["at"]
            assert len(node["connections"]) == 12
            assert len({each["pid"] for each in node["connections"]}) == 2
            edge = psutil.Process(node["connections"][0]["pid"])
            edge.suspend()
            try:
                answer = ask(server, "id=m")
                [node] = answer["nodes"]
                assert (node["code"], node["silent_processes"]) == ("process_silent", 1)
                assert 0 < clients(answer)["written"] < 12
            finally:
                edge.resume()
            os.kill(edge.pid, signal.SIGKILL)
            wait_until(
                lambda: len(server.status()["workers"]) == 2 and edge.pid not in pids(server), "an edge"
            )
            wait_until(lambda: ask(server, "id=m")["nodes"][0]["processes"] == 3, "its trace")
        finally:
            for context in browsers:
                context.__exit__(None, None, None)
        server.run("stop")


def pids(server: Installation) -> list[int]:
    return [worker["pid"] for worker in server.status()["workers"]]


@pytest.fixture
def running(installation: Installation) -> Installation:
    installation.start()
    return installation


def test_the_command(running: Installation) -> None:
    with listening_to(running.client_port, "a"):
        running.publish("a", uniqueID="m")
        done = running.run("trace", "m")
        assert done.returncode == 0
        assert done.stdout.splitlines()[0].startswith("Message m ")
        answer = json.loads(running.run("trace", "m", "--json", "--connections").stdout)
        assert clients(answer) == {"written": 1}
        assert connection(answer)["code"] == "written"
        done = running.run("trace", "--channel", "a", "--json")
        assert (done.returncode, json.loads(done.stdout)["query"]["channel"]) == (0, "a")


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["n"], 1),
        (["n", "--json"], 1),
        (["--user", "alice"], 1),
        (["--channel", "b"], 1),
        ([], 77),
        (["a", "b"], 77),
    ],
)
def test_the_exit_status(running: Installation, options: list[str], status: int) -> None:
    running.publish("a", uniqueID="m")
    assert running.run("trace", *options).returncode == status


def test_a_server_that_does_not_run(installation: Installation) -> None:
    assert installation.run("trace", "m").returncode == 1
