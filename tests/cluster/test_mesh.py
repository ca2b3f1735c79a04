"""Four nodes, each a process of its own, each listing all of them and itself."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.processes import history, listening_to, mesh, peers, publish, receive, wait_for_mesh
from tests.support.installation import Installation
from tests.support.waiting import wait_until

MESSAGES = 1000


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Installation]]:
    with mesh(tmp_path, 4) as running:
        yield running


def posts(nodes: list[Installation]) -> int:
    """How many POSTs the nodes have sent each other."""
    return sum(peer["posts"] for node in nodes for peer in peers(node))


def test_each_browser_gets_each_message_once_in_order_for_three_posts(nodes: list[Installation]) -> None:
    wait_for_mesh(nodes)
    with contextlib.ExitStack() as stack:
        browsers = [stack.enter_context(listening_to(node)) for node in nodes for _ in range(3)]
        publish(nodes[0], range(MESSAGES))
        publish(nodes[0], range(MESSAGES, MESSAGES + 1))
        for browser in browsers:
            assert receive(browser, MESSAGES + 1) == list(range(MESSAGES + 1))
    assert posts(nodes) <= 3 * (MESSAGES + 1)
    assert [sum(peer["sent"] for peer in peers(node)) for node in nodes] == [3 * (MESSAGES + 1), 0, 0, 0]
    assert [node.status()["duplicates"] for node in nodes] == [0, 0, 0, 0]


def test_messages_to_different_nodes_reach_all(nodes: list[Installation]) -> None:
    wait_for_mesh(nodes)
    with contextlib.ExitStack() as stack:
        browsers = [stack.enter_context(listening_to(node)) for node in nodes]
        for number, node in enumerate(nodes):
            publish(node, range(100 * number, 100 * number + 100))
        for browser in browsers:
            got = receive(browser, 400)
            assert sorted(got) == list(range(400))
            for number in range(4):
                assert [n for n in got if n // 100 == number] == list(range(100 * number, 100 * number + 100))
    assert posts(nodes) <= 3 * 400


def test_a_killed_node_receives_what_it_missed(nodes: list[Installation]) -> None:
    wait_for_mesh(nodes)
    publish(nodes[0], range(100))
    wait_until(lambda: not any(peer["queued"] for peer in peers(nodes[0])), "all to be acknowledged")
    nodes[3].kill()
    publish(nodes[0], range(100, 600))
    nodes[3].start()
    wait_until(lambda: nodes[3].status()["messages.in"] >= 500, "what it missed")
    publish(nodes[0], range(600, 601))
    wait_until(lambda: nodes[3].status()["history.size"] >= 501)
    assert history(nodes[3]) == list(range(100, 601))
    assert history(nodes[1]) == list(range(601))
    wait_for_mesh(nodes)


def test_order_holds_while_a_node_returns_in_the_middle_of_the_traffic(nodes: list[Installation]) -> None:
    wait_for_mesh(nodes)
    nodes[3].kill()
    is_over = threading.Event()
    sent = 0

    def publish_on() -> None:
        nonlocal sent
        while not is_over.is_set():
            publish(nodes[0], range(sent, sent + 20))
            sent += 20

    publisher = threading.Thread(target=publish_on)
    publisher.start()
    try:
        wait_until(lambda: sent > 200)
        nodes[3].start()
        wait_until(lambda: nodes[3].status()["messages.in"] > 500)
    finally:
        is_over.set()
        publisher.join()
    wait_until(lambda: nodes[3].status()["history.size"] == sent, "all messages")
    assert history(nodes[3]) == list(range(sent))


def test_overlapping_restarts_change_no_order_and_cost_no_posts(nodes: list[Installation]) -> None:
    """The restarted node does not know the earlier name of the one that is down, and queues for it too."""
    wait_for_mesh(nodes)
    publish(nodes[0], range(100))
    wait_until(lambda: not any(peer["queued"] for peer in peers(nodes[0])), "all to be acknowledged")
    nodes[3].kill()
    publish(nodes[0], range(100, 300))
    nodes[2].kill()
    nodes[2].start()
    publish(nodes[0], range(300, 500))
    nodes[3].start()
    wait_for_mesh(nodes)
    for node in nodes:
        wait_until(lambda node=node: not any(peer["queued"] for peer in peers(node)))  # type: ignore[misc]
    before = posts(nodes)
    with listening_to(nodes[3]) as browser:
        publish(nodes[0], range(500, 600))
        assert receive(browser, 100) == list(range(500, 600))
    wait_until(lambda: not any(peer["queued"] for peer in peers(nodes[0])), "all to be acknowledged")
    assert posts(nodes) - before <= 3 * 100
    assert history(nodes[3]) == list(range(100, 600))
    assert history(nodes[1]) == list(range(600))


def test_messages_before_the_nodes_are_connected_arrive_once(tmp_path: Path) -> None:
    with mesh(tmp_path, 4) as nodes:
        publish(nodes[0], range(50))
        wait_for_mesh(nodes)
        publish(nodes[0], range(50, 51))
        for node in nodes:
            wait_until(lambda node=node: node.status()["history.size"] == 51)  # type: ignore[misc]
            assert history(node) == list(range(51))
        assert max(node.status()["messages.out"] for node in nodes) == 51
