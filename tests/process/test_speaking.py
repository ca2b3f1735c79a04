"""Who may speak to a server, with the commands and processes that an operator has."""

import json
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import root, self_signed
from tests.support.installation import Installation
from tests.support.waiting import wait_until

SECRET, ANOTHER = "a-secret-of-many-letters", "another-secret-of-many-letters"


def write(installation: Installation, *, client: Any = None, admin: Any = None, **changes: Any) -> None:
    """Write the configuration with these keys of its two servers."""
    installation.write(**changes)
    content = json.loads(installation.config.read_text())
    content["servers"][0] |= client or {}
    content["servers"][1] |= admin or {}
    installation.config.write_text(json.dumps(content))


def status(installation: Installation) -> tuple[bool, str]:
    """Whether `status` got an answer, and what it complained of."""
    done = installation.run("status", "--json")
    assert done.returncode == 0
    return "fingerprint" in json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_commands_use_the_secret(installation: Installation, workers: int) -> None:
    write(installation, admin={"admin.secret": SECRET}, workers=workers)
    installation.start()
    assert installation.answers() is None
    assert status(installation)[0]
    done = installation.run("publish", "a", "--message", "hello")
    assert json.loads(done.stdout)["matched"] == 0


def test_a_secret_in_a_file_is_changed_without_a_moment_in_which_none_is_right(
    installation: Installation,
) -> None:
    file = installation.folder / "secret"
    write(installation, admin={"admin.secret.file": str(file)})
    file.write_text(SECRET)
    supervisor = installation.start()
    assert opens(installation, SECRET)
    for content, right, wrong in (
        (f"{SECRET}\n{ANOTHER}", {SECRET, ANOTHER}, set()),
        (ANOTHER, {ANOTHER}, {SECRET}),
    ):
        file.write_text(content)
        supervisor.send_signal(signal.SIGHUP)
        wait_until(lambda right=right: all(opens(installation, each) for each in right))  # type: ignore[misc]
        wait_until(lambda wrong=wrong: not any(opens(installation, each) for each in wrong))  # type: ignore[misc]
    file.write_text("")
    supervisor.send_signal(signal.SIGHUP)
    wait_until(lambda: installation.logged("keeping the current configuration"), "the refusal")
    assert opens(installation, ANOTHER)


def opens(installation: Installation, secret: str) -> bool:
    """Whether this secret is a right one."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{installation.admin_port}/status/", headers={"Authorization": f"Bearer {secret}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False


def test_a_secret_that_the_command_cannot_read(installation: Installation) -> None:
    file = installation.folder / "secret"
    file.write_text(SECRET)
    write(installation, admin={"admin.secret.file": str(file)})
    installation.start()
    file.unlink()
    answered, complaint = status(installation)
    assert not answered
    assert "admin.secret.file" in complaint


def test_commands_show_a_certificate(installation: Installation, tmp_path: Path) -> None:
    files = root().issue(client=True).write(tmp_path)
    write(installation, admin={**files.settings(), "ssl.ca": files.ca})
    installation.start()
    assert status(installation)[0]


@pytest.mark.parametrize("command", ["start", "check"])
@pytest.mark.parametrize("keys", [{"listen": "0.0.0.0"}, {"listen": "127.0.0.1"}, {}])
def test_an_admin_port_without_authentication_is_reported(
    installation: Installation, command: str, keys: dict[str, Any]
) -> None:
    write(installation, admin=keys)
    done = installation.run(command)
    assert done.returncode == 0
    assert ('"admin.secret" or "ssl.ca"' in done.stderr) is (keys.get("listen") == "0.0.0.0")
    if command == "start":
        assert installation.logged("has no authentication") is (keys.get("listen") == "0.0.0.0")


@pytest.mark.parametrize(
    ("keys", "reported"),
    [({}, True), ({"listen": "127.0.0.1"}, False), ({"proxy.trusted": ["10.0.0.0/8"]}, False)],
)
def test_a_port_that_browsers_block_is_reported(
    installation: Installation, keys: dict[str, Any], *, reported: bool
) -> None:
    write(installation, client={"port": 6697, "listen": "0.0.0.0", **keys})
    done = installation.run("check")
    assert ("refuse to connect to port 6697" in done.stderr) is reported, done.stderr


def test_an_admin_port_with_authentication_is_not_reported(
    installation: Installation, tmp_path: Path
) -> None:
    files = root().issue(client=True).write(tmp_path)
    for keys in ({"admin.secret": SECRET}, {**files.settings(), "ssl.ca": files.ca}):
        write(installation, admin={"listen": "0.0.0.0", **keys})
        done = installation.run("check")
        assert done.returncode == 0
        assert "asks nobody" not in done.stderr


@pytest.mark.parametrize("command", ["start", "check"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"no certificate", "CA certificates in PEM"),
        (root().issue().own, "is not one"),
    ],
)
def test_an_invalid_authority(
    installation: Installation, tmp_path: Path, command: str, content: bytes, expected: str
) -> None:
    (tmp_path / "ca").write_bytes(content)
    keys = {**root().issue().write(tmp_path).settings(), "ssl.ca": str(tmp_path / "ca")}
    write(installation, admin=keys)
    done = installation.run(command)
    assert done.returncode == 77
    assert f"ssl.ca of the admin server on port {installation.admin_port} is " in done.stderr
    assert expected in done.stderr


def test_new_origins_apply(installation: Installation) -> None:
    def is_let_in() -> bool:
        done = installation.run("doctor", "--origin", "https://evil.example", "--json")
        return bool(json.loads(done.stdout)["ok"])

    supervisor = installation.start()
    assert is_let_in()
    write(installation, client={"origins": ["https://phorge.example.com"]})
    supervisor.send_signal(signal.SIGHUP)
    wait_until(lambda: not is_let_in(), "a refusal")
    write(installation)
    supervisor.send_signal(signal.SIGHUP)
    wait_until(is_let_in, "an end of refusals")


def test_a_reload_warns_of_certificates_that_expire_soon(installation: Installation, tmp_path: Path) -> None:
    files = self_signed().write(tmp_path)
    write(installation, client=files.settings())
    supervisor = installation.start()
    assert not installation.logged("renew it")
    self_signed(days=9).write(tmp_path)
    supervisor.send_signal(signal.SIGHUP)
    wait_until(lambda: installation.logged("renew it"), "the warning")
    assert installation.log.read_text().count("renew it") == 1


def test_counts_of_several_processes_are_added(installation: Installation) -> None:
    write(installation, client={"origins": ["https://phorge.example.com"]}, workers=2)
    installation.start()
    for port, path in (
        (installation.client_port, "poll?channel=a"),
        (installation.admin_port, "status/"),
    ) * 4:
        headers = {"Origin": "https://evil.example"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=5)
        assert caught.value.code == 403
        caught.value.close()
    refused = installation.answers()["refused"]
    assert (refused["origins"], refused["admin.pages"]) == (4, 4)
