"""workers: N, with real processes: one node outside, several processes inside."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.cluster.processes import wait_for_mesh
from tests.faults.crowd import crowd
from tests.support.browsing import listening_to, receive
from tests.support.curl import curl
from tests.support.installation import Installation, installed
from tests.support.waiting import eventually, eventually_async, wait_until

WORKERS = 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Installation]:
    """A running server of one hub and three edges."""
    installation = Installation(tmp_path, workers=WORKERS)
    installation.start()
    yield installation
    installation.run("stop")
    installation.end()


def edges(server: Installation) -> list[int]:
    """The pids of the edges that have joined."""
    answer = server.answers() or {}
    return [worker["pid"] for worker in answer.get("workers", ())]


def hub(server: Installation) -> int:
    """The pid of the hub that answers; 0 for none."""
    return int((server.answers() or {"pid": 0})["pid"])


@asynccontextmanager
async def browsers(server: Installation, count: int, channel: str) -> AsyncIterator[list[ClientConnection]]:
    """Connect clients, which the kernel distributes over the edges."""
    url = f"ws://127.0.0.1:{server.client_port}/"
    opened = [await connect(url) for _ in range(count)]
    for browser in opened:
        await browser.send(json.dumps({"command": "subscribe", "data": [channel], "id": 1}))
        await browser.recv()
    yield opened
    for browser in opened:
        await browser.close()


async def publish(server: Installation, message: dict[str, Any]) -> dict[str, Any]:
    """Publish as a careful backend does: again, with the same uniqueID, until it is acknowledged."""
    url = f"http://127.0.0.1:{server.admin_port}/"
    while True:
        try:
            answer = await AsyncHTTPClient().fetch(
                url, method="POST", body=json.dumps(message), request_timeout=2
            )
            return dict(json.loads(answer.body))
        except (HTTPClientError, OSError):
            await asyncio.sleep(0.02)


async def numbers(browser: ClientConnection, count: int) -> list[int]:
    """Return the `n` of the next messages."""
    return [json.loads(await browser.recv())["n"] for _ in range(count)]


async def last_place(server: Installation, channel: str) -> str:
    """Where a browser goes on that is here now."""
    async with connect(f"ws://127.0.0.1:{server.client_port}/") as browser:
        await browser.send(json.dumps({"command": "subscribe", "data": [channel], "id": 1}))
        return str(json.loads(await browser.recv())["last"])


async def resume(server: Installation, channel: str, after: str) -> list[tuple[int, bool]]:
    """Go on from there, often enough to come to every edge: how many messages came, and whether these were all."""
    results: list[tuple[int, bool]] = []
    for _ in range(16):
        async with connect(f"ws://127.0.0.1:{server.client_port}/", max_queue=None) as browser:
            await browser.send(json.dumps({"command": "subscribe", "data": [channel]}))
            await browser.send(json.dumps({"command": "replay", "data": {"after": after}, "id": 1}))
            while (answer := json.loads(await browser.recv())).get("type") != "ack":
                pass
            results.append((answer["count"], answer["recovered"]))
    return results


async def test_a_client_cannot_resume_across_a_restart(server: Installation) -> None:
    await publish(server, {"subscribers": ["a"], "uniqueID": "before"})
    last = await last_place(server, "a")
    await publish(server, {"subscribers": ["a"], "uniqueID": "lost"})
    server.run("restart")
    for after in (last, "before"):
        assert set(await resume(server, "a", after)) == {(0, False)}
    last = await last_place(server, "a")
    await publish(server, {"subscribers": ["a"], "uniqueID": "kept"})
    assert set(await resume(server, "a", last)) == {(1, True)}


async def test_a_new_edge_knows_earlier_evictions(tmp_path: Path) -> None:
    async def replace(kill: int) -> None:
        os.kill(kill, signal.SIGKILL)
        await eventually(lambda: kill not in (*edges(server), hub(server)), "its end")
        await eventually(lambda: len(edges(server)) == WORKERS, "the next one")

    async def check() -> None:
        async def has_all() -> bool:
            return set(await resume(server, "a", early)) == {(kept, False)}

        await eventually_async(has_all, "the history at each edge")
        assert set(await resume(server, "a", late)) == {(10, True)}

    with installed(tmp_path, workers=WORKERS, history=100_000) as server:
        server.start()
        early = await last_place(server, "a")
        server.post([{"subscribers": ["a"]} for _ in range(200)])
        late = await last_place(server, "a")
        server.post([{"subscribers": ["a"]} for _ in range(10)])
        kept = server.answers()["history.size"]
        assert 10 < kept < 200
        await replace(edges(server)[0])
        await check()
        await replace(hub(server))
        await replace(edges(server)[1])
        await check()


async def test_a_token_is_exact_at_each_process_after_others_were_killed(server: Installation) -> None:
    await publish(server, {"subscribers": ["a"]})
    tokens = [await last_place(server, "a")]
    for kill in (hub(server), edges(server)[0]):
        for _ in range(5):
            await publish(server, {"subscribers": ["a"]})
        os.kill(kill, signal.SIGKILL)
        await eventually(lambda kill=kill: kill not in (*edges(server), hub(server)), "its end")  # type: ignore[misc]
        await eventually(lambda: len(edges(server)) == WORKERS, "the next one")
        tokens.append(await last_place(server, "a"))
    await publish(server, {"subscribers": ["a"]})
    for count, last in zip((11, 6, 1), tokens, strict=True):
        assert set(await resume(server, "a", last)) == {(count, True)}


async def test_clients_of_an_edge_that_hung_for_too_long_have_to_resume(tmp_path: Path) -> None:
    text = "x" * 500_000
    with installed(tmp_path, workers=2, history=4_000_000) as server:
        server.start()
        before = await last_place(server, "a")
        async with browsers(server, 12, "other") as opened:
            hung = psutil.Process(edges(server)[0])
            hung.suspend()
            while not server.logged("disconnected an edge that does not read"):
                status, _ = server.post([{"subscribers": ["a"], "text": text}, {"subscribers": ["a"]}])
                assert status in (200, 503)
            hung.resume()
            closed = await eventually(
                lambda: [each for each in opened if each.close_code], "closed connections"
            )
            assert {each.close_code for each in closed} == {1013}
            await eventually(lambda: len(edges(server)) == 2, "the edge's return")
            assert 0 < len(closed) < 12
            assert {recovered for _, recovered in await resume(server, "a", before)} == {False}
        server.run("stop")


async def test_the_status_covers_all_processes(server: Installation) -> None:
    async with browsers(server, 30, "a"):
        receipt = await publish(server, {"subscribers": ["a"], "n": 1})
        assert receipt["matched"] == 30
        status = server.answers()
        assert status["clients.active"] == status["connections"] == status["clients.total"] == 30
        assert status["messages.in"] == 1
        assert status["messages.out"] == 30
        assert len(status["workers"]) == WORKERS
        assert all(worker["connections"] for worker in status["workers"])


async def test_every_client_of_every_edge_receives_each_message_once_in_order(server: Installation) -> None:
    async with browsers(server, 30, "a") as opened:
        for number in range(200):
            await publish(server, {"subscribers": ["a"], "n": number, "uniqueID": str(number)})
            await publish(server, {"subscribers": ["a"], "n": number, "uniqueID": str(number)})
        for browser in opened:
            assert await numbers(browser, 200) == list(range(200))


async def test_a_killed_edge_disconnects_only_its_clients_which_can_resume(
    server: Installation,
) -> None:
    async with browsers(server, 30, "a") as opened:
        first = await publish(server, {"subscribers": ["a"], "n": 0})
        before = edges(server)
        os.kill(before[0], signal.SIGKILL)
        await publish(server, {"subscribers": ["a"], "n": 1})
        lost = 0
        for browser in opened:
            try:
                assert await numbers(browser, 2) == [0, 1]
            except ConnectionClosed:
                lost += 1
        assert 0 < lost < 30
        await eventually(lambda: len(edges(server)) == WORKERS, "the edge's return")
        [new] = set(edges(server)) - set(before)
        assert psutil.pid_exists(new)
        for _ in range(10):  # some of them come to the new edge
            async with connect(f"ws://127.0.0.1:{server.client_port}/") as browser:
                await browser.send(json.dumps({"command": "subscribe", "data": ["a"]}))
                after = {"after": first["uniqueID"]}
                await browser.send(json.dumps({"command": "replay", "data": after, "id": 2}))
                assert await numbers(browser, 1) == [1]
                assert json.loads(await browser.recv())["recovered"] is True


async def test_a_killed_hub_disconnects_nobody_and_loses_nothing(server: Installation) -> None:
    async with browsers(server, 12, "a") as opened:
        killed = [hub(server)]

        async def kill_again_and_again() -> None:
            for _ in range(3):
                await asyncio.sleep(0.3)
                os.kill(killed[-1], signal.SIGKILL)
                await eventually(lambda: hub(server) not in (0, killed[-1]), "another hub")
                killed.append(hub(server))

        killing = asyncio.create_task(kill_again_and_again())
        number = 0
        while not killing.done() or number < 300:
            receipt = await publish(server, {"subscribers": ["a"], "n": number, "uniqueID": f"id-{number}"})
            assert receipt["fingerprint"]
            number += 1
        await killing
        for browser in opened:
            assert await numbers(browser, number) == list(range(number))
        assert len(set(killed)) == 4


def test_a_peer_that_was_hung_receives_messages_of_a_killed_hub(tmp_path: Path) -> None:
    with installed(tmp_path / "two") as peer, installed(tmp_path / "one", workers=2) as server:
        cluster = [{"host": "127.0.0.1", "port": node.admin_port} for node in (server, peer)]
        server.write(workers=2, cluster=cluster)
        peer.write(cluster=cluster)
        for node in (peer, server):
            node.start()
        wait_for_mesh([server, peer])
        first = {"subscribers": ["a"], "uniqueID": "first"}
        assert server.post(first)[0] == 200
        wait_until(lambda: peer.status()["history.size"] == 1, "the first message at the peer")
        with listening_to(peer.client_port, "a") as browser:
            worker = peer.worker()
            worker.suspend()
            second = {"subscribers": ["a"], "uniqueID": "second"}
            assert server.post(second)[0] == 200
            before = hub(server)
            os.kill(before, signal.SIGKILL)
            wait_until(lambda: hub(server) not in (0, before), "another hub")
            worker.resume()
            assert server.post({"subscribers": ["a"], "uniqueID": "third"})[0] == 200
            got = [message["uniqueID"] for message in receive(browser, 2)]
            assert sorted(got) == ["second", "third"]
        for message in (first, second):
            assert peer.post(message)[1]["duplicate"] is True
        for node in (server, peer):
            node.run("stop")


async def test_the_first_receipt_of_a_new_hub_counts_every_client(server: Installation) -> None:
    async with browsers(server, 12, "a"):
        for number in range(2):  # the third would be replaced later than a publisher waits
            os.kill(hub(server), signal.SIGKILL)
            receipt = await publish(server, {"subscribers": ["a"], "uniqueID": str(number)})
            assert receipt["matched"] == 12
            await eventually(lambda: len(edges(server)) == WORKERS, "the edges")


def test_a_stop_warns_of_nothing(server: Installation) -> None:
    server.run("stop")
    stopping = server.log.read_text().partition("stopping (SIGTERM)")[2]
    assert "the server stopped" in stopping
    assert "WARNING" not in stopping
    assert "ERROR" not in stopping


def test_publishing_resumes_soon_after_the_hub_is_killed(server: Installation) -> None:
    os.kill(hub(server), signal.SIGKILL)
    wait_until(lambda: hub(server), "a hub that answers", timeout=4)
    wait_until(lambda: len(edges(server)) == WORKERS, "the edges' return", timeout=4)


def test_a_hub_without_edges_reports_an_error(server: Installation) -> None:
    for _ in range(2):  # the second time they are replaced only after half a second
        for edge in edges(server):
            os.kill(edge, signal.SIGKILL)
        wait_until(lambda: (server.answers() or {}).get("state") == "ERROR", "word of it")
        wait_until(lambda: len(edges(server)) == WORKERS, "the edges' return")
    assert server.answers()["state"] == "RUNNING"


def test_fingerprint_and_uptime_outlive_the_hub(server: Installation) -> None:
    before = server.answers()
    os.kill(before["pid"], signal.SIGKILL)
    wait_until(lambda: hub(server) not in (0, before["pid"]), "another hub")
    after = server.answers()
    assert after["fingerprint"] == before["fingerprint"]
    assert after["uptime"] > before["uptime"], "it is the node's"


def test_a_killed_supervisor_leaves_no_process(server: Installation) -> None:
    supervisor = server.supervisor()
    children = supervisor.children()
    assert len(children) == WORKERS + 1
    supervisor.kill()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    server.start()


def test_two_servers_do_not_share_a_port(server: Installation, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Installation(tmp_path / "other")
    other.client_port = server.client_port
    other.write(workers=WORKERS)
    done = other.run("start")
    assert done.returncode == 1
    assert f"port {server.client_port}" in done.stderr


async def test_a_poll_can_continue_at_another_edge(server: Installation) -> None:
    async def poll(last: str | None) -> dict[str, Any]:
        after = "" if last is None else f"&after={last}"
        answer = await curl(f"http://127.0.0.1:{server.client_port}/poll?channel=a&wait=0{after}")
        assert answer.json["recovered"] is True
        return dict(answer.json)

    last, got = (await poll(None))["last"], []
    for n in range(20):
        await publish(server, {"subscribers": ["a"], "uniqueID": f"u{n}", "n": n})
        answer = await poll(last)
        last = answer["last"]
        got += [message["n"] for message in answer["messages"]]
    assert got == list(range(20))


def test_publishers_are_rejected_while_an_edge_is_overloaded(tmp_path: Path) -> None:
    with installed(tmp_path, workers=2, delivery_queue=1) as server:
        server.start()
        names = [str(number) for number in range(20)]
        rest, refusals = [{"subscribers": ["a"], "uniqueID": name} for name in names], 0
        with crowd(server.client_port, "a", 600) as browsers:  # more at one edge than get a message at once
            while rest:
                status, answer = server.post(rest)
                rest = rest[len(answer.get("receipts", ())) :]
                assert status == (503 if rest else 200)
                refusals += status == 503
            wait_until(lambda: browsers.heard() == [names] * 3, "the messages, each once, in order")
        assert server.answers()["limits"]["limits.delivery_queue"] == refusals > 0
        server.run("stop")
