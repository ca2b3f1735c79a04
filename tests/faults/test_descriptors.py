"""A worker without free file descriptors."""

import contextlib
import resource
import socket
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.support.browsing import listening_to, receive
from tests.support.installation import Installation
from tests.support.waiting import wait_until

LEFT = 20  # descriptors that the worker may still have
CROWD = 60
WATCHED = 1.5  # seconds
IDLE = 0.25  # of a core: what a worker may take that has nothing to do but to wait for descriptors


@pytest.fixture
def crowd(installation: Installation) -> Iterator[contextlib.ExitStack]:
    """Open more connections than there are descriptors; the others wait in the backlog."""
    installation.start()
    worker = installation.worker()
    limit = worker.num_fds() + LEFT
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (limit, limit))
    with contextlib.ExitStack() as stack:
        for _ in range(CROWD):
            stack.enter_context(socket.create_connection(("127.0.0.1", installation.client_port)))
        wait_until(lambda: worker.num_fds() >= limit - 1, "the worker to run out of descriptors")
        yield stack


def usage(process: psutil.Process) -> float:
    """The share of a core that a process uses."""
    before, began = process.cpu_times(), time.monotonic()
    wait_until(lambda: time.monotonic() - began > WATCHED)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / WATCHED


def test_a_worker_without_descriptors_does_not_spin(
    installation: Installation, crowd: contextlib.ExitStack
) -> None:
    worker = installation.supervisor().children()[0]
    assert usage(worker) < IDLE
    assert installation.log.read_text().count("cannot accept connections") <= 2, (
        "it is said, but not on and on"
    )


def test_service_resumes_when_some_come_free(installation: Installation, crowd: contextlib.ExitStack) -> None:
    crowd.close()
    with listening_to(installation.client_port, "a") as browser:
        assert installation.post({"subscribers": ["a"], "n": 1})[0] == 200
        assert receive(browser, 1)[0]["n"] == 1


def test_who_was_in_before_gets_messages_all_the_while(installation: Installation) -> None:
    installation.start()
    worker = installation.worker()
    with listening_to(installation.client_port, "a") as browser, contextlib.ExitStack() as stack:
        publisher = stack.enter_context(socket.create_connection(("127.0.0.1", installation.admin_port)))
        request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 21\r\n\r\n" + b'{"subscribers":["a"]}'
        publisher.sendall(request)
        assert publisher.recv(65536).startswith(b"HTTP/1.1 200 ")
        limit = worker.num_fds()
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (limit, limit))
        for _ in range(CROWD):
            stack.enter_context(socket.create_connection(("127.0.0.1", installation.client_port)))
        for _ in range(10):
            publisher.sendall(request)
            assert publisher.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert len(receive(browser, 11)) == 11


def test_publishers_beyond_their_part_are_told_so_under_a_name_of_their_own(
    installation: Installation,
) -> None:
    few = 300
    done = installation.run(
        "start", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))
    )
    assert done.returncode == 0, done
    with contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_connection(("127.0.0.1", installation.admin_port)))
            for _ in range(few // 16)
        ]
        beyond = stack.enter_context(socket.create_connection(("127.0.0.1", installation.admin_port)))
        beyond.sendall(b"GET /status/ HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = beyond.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"too_many_publishers"' in answer
        held[0].close()
        wait_until(installation.answers, "room for another publisher")
    assert installation.answers()["refused"]["admin.connections"] >= 1
    assert installation.logged("admin.connections reached by 127.0.0.1")
