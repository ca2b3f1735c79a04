"""The doctor's checks with origins, secrets and client certificates."""

import json
from pathlib import Path

import pytest

from tests.process.test_speaking import write
from tests.support.certificates import root
from tests.support.doctor import Doctor
from tests.support.installation import Installation

SECRET, ANOTHER = "a-secret-of-many-letters", "another-secret-of-many-letters"
OURS = "https://phorge.example.com"


@pytest.mark.parametrize("origins", [[OURS], ["*.example.com"], ["http://*.example.org:8080", OURS]])
def test_an_allowed_origin(installation: Installation, doctor: Doctor, origins: list[str]) -> None:
    write(installation, client={"origins": origins})
    installation.start()
    assert doctor.examine(installation).status == 0


def test_a_rejected_origin(installation: Installation, doctor: Doctor) -> None:
    write(installation, client={"origins": [OURS]})
    installation.start()
    assert doctor.examine(installation, "--origin", OURS).status == 0
    diagnosis = doctor.examine(installation, "--origin", "https://evil.example")
    diagnosis.expect(
        "upgrade", "origin_forbidden", "https://evil.example", f"port {installation.client_port}", "SIGHUP"
    )


@pytest.mark.parametrize("origin", ["https://example.com/path", "*.example.com", "example.com"])
def test_an_invalid_origin(installation: Installation, origin: str) -> None:
    done = installation.run("doctor", "--origin", origin)
    assert done.returncode == 77
    assert f"--origin is {origin}, expected" in done.stderr


def test_a_secret(installation: Installation, doctor: Doctor) -> None:
    port = installation.admin_port
    write(installation, admin={"admin.secret": SECRET}, cluster=[{"host": "127.0.0.1", "port": port}])
    installation.start()
    assert doctor.examine(installation).status == 0
    write(installation, admin={"admin.secret": ANOTHER})
    doctor.examine(installation).expect(f"admin port {port}", "unauthorized", "SIGHUP")


def test_a_peer_with_another_secret(installation: Installation, doctor: Doctor) -> None:
    port = installation.admin_port
    peer = {"host": "127.0.0.1", "port": port, "secret": ANOTHER}
    write(installation, admin={"admin.secret": SECRET}, cluster=[peer])
    installation.start()
    doctor.examine(installation).expect(f"peer 127.0.0.1:{port}", "unauthorized", "admin.secret")


def test_a_certificate(installation: Installation, doctor: Doctor, tmp_path: Path) -> None:
    files = root().issue(client=True).write(tmp_path)
    peer = {"host": "127.0.0.1", "port": installation.admin_port, "protocol": "https", "ssl.ca": files.ca}
    write(installation, admin={**files.settings(), "ssl.ca": files.ca}, cluster=[peer])
    installation.start()
    assert doctor.examine(installation).status == 0
    stranger = root("Someone Else").issue(client=True).write(tmp_path, "stranger")
    content = json.loads(installation.config.read_text())
    content["cluster"][0] |= {"ssl.cert": stranger.cert, "ssl.key": stranger.key}
    installation.config.write_text(json.dumps(content))
    doctor.examine(installation).expect(
        f"peer 127.0.0.1:{installation.admin_port}", "peer_tls_error", "ssl.cert"
    )
