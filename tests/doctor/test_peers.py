"""What the doctor says of the other nodes of a cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.doctor import Doctor
from tests.support.installation import Installation, installed
from tests.support.nodes import listening


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Installation]:
    """Another node."""
    folder = tmp_path / "other"
    folder.mkdir()
    with installed(folder) as made:
        yield made


def listed(*ports: int, protocol: str = "http") -> list[dict[str, object]]:
    """The `cluster` of a configuration."""
    return [{"host": "127.0.0.1", "port": port, "protocol": protocol} for port in ports]


def test_nodes_that_know_each_other(installation: Installation, other: Installation, doctor: Doctor) -> None:
    cluster = listed(installation.admin_port, other.admin_port)
    for node in installation, other:
        node.write(cluster=cluster)
        node.start()
    diagnosis = doctor.visit(installation)
    assert diagnosis.status == 0
    assert diagnosis.of(f"peer 127.0.0.1:{installation.admin_port}")[0]["says"] == "is this node itself"
    [found] = diagnosis.of(f"peer 127.0.0.1:{other.admin_port}")
    assert found["says"].startswith("is node ")
    assert "agrees with" in diagnosis.of("clock")[0]["says"]


def test_a_peer_that_does_not_know_this_node(
    installation: Installation, other: Installation, doctor: Doctor
) -> None:
    other.start()
    installation.write(cluster=listed(other.admin_port))
    installation.start()
    diagnosis = doctor.visit(installation)
    assert diagnosis.status == 0
    assert "does not know this node" in diagnosis.of(f"peer 127.0.0.1:{other.admin_port}")[1]["says"]


def test_a_peer_that_is_away(installation: Installation, doctor: Doctor) -> None:
    with listening() as sock:
        port = sock.getsockname()[1]
    installation.write(cluster=listed(port))
    installation.start()
    doctor.visit(installation).expect(f"peer 127.0.0.1:{port}", "nothing listens on", "start it")


def test_a_peer_whose_client_port_was_given(
    installation: Installation, other: Installation, doctor: Doctor
) -> None:
    other.start()
    installation.write(cluster=listed(other.client_port))
    installation.start()
    diagnosis = doctor.visit(installation)
    diagnosis.expect(
        f"peer 127.0.0.1:{other.client_port}", "not as an admin server", "port of its admin server"
    )


def test_a_peer_that_has_no_tls(installation: Installation, other: Installation, doctor: Doctor) -> None:
    other.start()
    installation.write(cluster=listed(other.admin_port, protocol="https"))
    installation.start()
    diagnosis = doctor.visit(installation)
    diagnosis.expect(f"peer 127.0.0.1:{other.admin_port}", "does not speak TLS", '"http"')


def test_a_peer_that_the_running_node_does_not_know(
    installation: Installation, other: Installation, doctor: Doctor
) -> None:
    other.start()
    installation.start()
    installation.write(cluster=listed(other.admin_port))
    diagnosis = doctor.visit(installation)
    diagnosis.expect(f"peer 127.0.0.1:{other.admin_port}", "the running node does not know it", "restart")
