"""What the doctor says of who may speak to a server."""

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
def test_a_page_that_is_let_in(installation: Installation, doctor: Doctor, origins: list[str]) -> None:
    write(installation, client={"origins": origins})
    installation.start()
    assert doctor.visit(installation).status == 0


def test_a_page_that_is_not(installation: Installation, doctor: Doctor) -> None:
    write(installation, client={"origins": [OURS]})
    installation.start()
    assert doctor.visit(installation, "--origin", OURS).status == 0
    diagnosis = doctor.visit(installation, "--origin", "https://evil.example")
    diagnosis.expect(
        "upgrade", "no pages of https://evil.example", f"port {installation.client_port}", "SIGHUP"
    )


@pytest.mark.parametrize("origin", ["https://example.com/path", "*.example.com", "example.com"])
def test_an_origin_that_is_none(installation: Installation, origin: str) -> None:
    done = installation.run("doctor", "--origin", origin)
    assert done.returncode == 77
    assert f"--origin is {origin}, expected" in done.stderr


def test_a_secret(installation: Installation, doctor: Doctor) -> None:
    port = installation.admin_port
    write(installation, admin={"admin.secret": SECRET}, cluster=[{"host": "127.0.0.1", "port": port}])
    installation.start()
    assert doctor.visit(installation).status == 0
    write(installation, admin={"admin.secret": ANOTHER})
    doctor.visit(installation).expect(f"admin port {port}", "(401)", "SIGHUP")


def test_a_peer_with_another_secret(installation: Installation, doctor: Doctor) -> None:
    port = installation.admin_port
    peer = {"host": "127.0.0.1", "port": port, "secret": ANOTHER}
    write(installation, admin={"admin.secret": SECRET}, cluster=[peer])
    installation.start()
    doctor.visit(installation).expect(f"peer 127.0.0.1:{port}", "(401)", "the same admin.secret")


def test_a_certificate(installation: Installation, doctor: Doctor, tmp_path: Path) -> None:
    files = root().issue(client=True).write(tmp_path)
    peer = {"host": "127.0.0.1", "port": installation.admin_port, "protocol": "https", "ssl.ca": files.ca}
    write(installation, admin={**files.settings(), "ssl.ca": files.ca}, cluster=[peer])
    installation.start()
    assert doctor.visit(installation).status == 0
    stranger = root("Someone Else").issue(client=True).write(tmp_path, "stranger")
    content = json.loads(installation.config.read_text())
    content["cluster"][0] |= {"ssl.cert": stranger.cert, "ssl.key": stranger.key}
    installation.config.write_text(json.dumps(content))
    doctor.visit(installation).expect(f"peer 127.0.0.1:{installation.admin_port}", "certificate", "ssl.cert")
