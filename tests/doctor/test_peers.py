"""The doctor's checks of the peers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.doctor import Doctor
from tests.support.installation import Installation, installed
from tests.support.nodes import listening


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Installation]:
    """A second node."""
    folder = tmp_path / "other"
    folder.mkdir()
    with installed(folder) as made:
        yield made


def listed(*ports: int, protocol: str = "http") -> list[dict[str, object]]:
    """Return a value for `cluster`."""
    return [{"host": "127.0.0.1", "port": port, "protocol": protocol} for port in ports]


def test_nodes_that_list_each_other(installation: Installation, other: Installation, doctor: Doctor) -> None:
    cluster = listed(installation.admin_port, other.admin_port)
    for node in installation, other:
        node.write(cluster=cluster)
        node.start()
    diagnosis = doctor.examine(installation)
    assert diagnosis.status == 0
    assert diagnosis.of(f"peer 127.0.0.1:{installation.admin_port}")[0]["message"] == "this node itself"
    [found] = diagnosis.of(f"peer 127.0.0.1:{other.admin_port}")
    assert found["message"].startswith("node ")
    assert f"127.0.0.1:{other.admin_port}" in diagnosis.of("clock")[0]["message"]


def test_a_peer_that_does_not_list_this_node(
    installation: Installation, other: Installation, doctor: Doctor
) -> None:
    other.start()
    installation.write(cluster=listed(other.admin_port))
    installation.start()
    diagnosis = doctor.examine(installation)
    diagnosis.expect_warning(f"peer 127.0.0.1:{other.admin_port}", "not_listed_by_peer")


def test_a_peer_that_is_not_running(installation: Installation, doctor: Doctor) -> None:
    with listening() as sock:
        port = sock.getsockname()[1]
    installation.write(cluster=listed(port))
    installation.start()
    doctor.examine(installation).expect(f"peer 127.0.0.1:{port}", "peer_unreachable")


def test_a_peer_with_the_port_of_its_client_server(
    installation: Installation, other: Installation, doctor: Doctor
) -> None:
    other.start()
    installation.write(cluster=listed(other.client_port))
    installation.start()
    diagnosis = doctor.examine(installation)
    diagnosis.expect(f"peer 127.0.0.1:{other.client_port}", "peer_bad_response")


def test_a_peer_without_tls(installation: Installation, other: Installation, doctor: Doctor) -> None:
    other.start()
    installation.write(cluster=listed(other.admin_port, protocol="https"))
    installation.start()
    diagnosis = doctor.examine(installation)
    diagnosis.expect(f"peer 127.0.0.1:{other.admin_port}", "peer_tls_error", '"http"')


def test_a_peer_that_the_running_node_does_not_know(
    installation: Installation, other: Installation, doctor: Doctor
) -> None:
    other.start()
    installation.start()
    installation.write(cluster=listed(other.admin_port))
    diagnosis = doctor.examine(installation)
    diagnosis.expect(f"peer 127.0.0.1:{other.admin_port}", "restart_required")
