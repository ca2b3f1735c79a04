"""What the doctor says of this machine: configuration, files, process, ports and limits."""

import json
import resource
from pathlib import Path

import psutil
import pytest

from aphlict.cli.main import main
from tests.support import certificates
from tests.support.doctor import Doctor
from tests.support.installation import Installation
from tests.support.nodes import listening
from tests.support.waiting import wait_until


def url(installation: Installation, path: str = "/ws/") -> tuple[str, str]:
    """The option that names the client port."""
    return "--url", f"ws://localhost:{installation.client_port}{path}"


def test_a_server_that_is_well(installation: Installation, doctor: Doctor) -> None:
    installation.start()
    diagnosis = doctor.visit(installation)
    assert diagnosis.status == 0
    assert diagnosis.of("delivery")[0]["verdict"] == "ok"
    assert diagnosis.of("proxy")[0]["verdict"] == "skipped"


def test_a_server_with_several_workers(installation: Installation, doctor: Doctor) -> None:
    installation.write(workers=2)
    installation.start()
    assert doctor.visit(installation).status == 0


def test_a_server_that_does_not_run(installation: Installation, doctor: Doctor) -> None:
    port = f"client port {installation.client_port}"
    doctor.visit(installation).expect(port, "the server does not run", "aphlict start")


def test_a_configuration_that_is_wrong(installation: Installation, doctor: Doctor) -> None:
    installation.config.write_text("{")
    diagnosis = doctor.visit(installation)
    assert diagnosis.status == 77
    assert diagnosis.first["check"] == "configuration"
    assert str(installation.config) in diagnosis.first["says"]


def test_a_key_that_belongs_to_another_certificate(
    installation: Installation, doctor: Doctor, tmp_path: Path
) -> None:
    good, other = (
        certificates.self_signed().write(tmp_path, "a"),
        certificates.self_signed().write(tmp_path, "b"),
    )
    client = {"type": "client", "port": installation.client_port, "ssl.key": other.key, "ssl.cert": good.cert}
    installation.write(servers=[client, {"type": "admin", "port": installation.admin_port}])
    diagnosis = doctor.visit(installation)
    assert diagnosis.status == 77
    assert diagnosis.first["check"] == "certificates"
    assert "ssl.key" in diagnosis.first["says"]


def test_a_log_that_is_no_file(installation: Installation, doctor: Doctor) -> None:
    installation.log.mkdir(parents=True)
    doctor.visit(installation).expect("files", str(installation.log), "is not a file")


def test_a_log_that_is_no_plain_file(installation: Installation, doctor: Doctor) -> None:
    installation.log = Path("/dev/stderr")
    installation.write()
    assert doctor.visit(installation).of("files")[0]["verdict"] == "ok"


def test_a_server_that_was_killed(installation: Installation, doctor: Doctor) -> None:
    installation.start().kill()
    wait_until(lambda: installation.answers() is None, "the worker's end")
    [process] = doctor.visit(installation).of("process")
    assert f"the server that wrote {installation.pidfile} is gone" in process["says"]


def test_a_port_that_belongs_to_another_program(installation: Installation, doctor: Doctor, ssh: int) -> None:
    client = {"type": "client", "port": ssh, "listen": "127.0.0.1"}
    installation.write(servers=[client, {"type": "admin", "port": installation.admin_port}])
    pid = psutil.Process().pid
    doctor.visit(installation).expect(f"client port {ssh}", "does not speak HTTP", f"process {pid}")


def test_a_server_that_may_open_few_files(installation: Installation, doctor: Doctor) -> None:
    installation.start()
    worker = installation.worker()
    worker.rlimit(psutil.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    diagnosis = doctor.visit(installation)
    assert diagnosis.status == 0
    assert "64 are few" in diagnosis.of("file descriptors")[1]["says"]


def test_a_name_that_the_dns_does_not_have(installation: Installation, doctor: Doctor) -> None:
    installation.start()
    diagnosis = doctor.visit(installation, "--url", "wss://notify.invalid/ws/")
    diagnosis.expect("DNS", "notify.invalid has no address")


def test_a_port_on_which_nothing_listens(installation: Installation, doctor: Doctor) -> None:
    installation.start()
    with listening() as sock:
        port = sock.getsockname()[1]
    diagnosis = doctor.visit(installation, "--url", f"ws://localhost:{port}/ws/")
    diagnosis.expect("TCP", f"nothing listens on port {port} of localhost")


def test_a_port_that_browsers_refuse(installation: Installation, doctor: Doctor) -> None:
    installation.start()
    diagnosis = doctor.visit(installation, "--url", "ws://localhost:6000/ws/")
    diagnosis.expect("URL", "browsers refuse to connect to port 6000", "another port")


def test_a_port_that_does_not_speak_http(installation: Installation, doctor: Doctor, ssh: int) -> None:
    installation.start()
    diagnosis = doctor.visit(installation, "--url", f"ws://localhost:{ssh}/ws/")
    diagnosis.expect("upgrade", "does not speak HTTP", "SSH-2.0")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("https://example.org/ws/", "expected a WebSocket's: wss://example.org"),
        ("example.org/ws/", "expected ws://HOST/"),
        ("ws://example.org:99999/", "Port out of range"),
        ("ws:///ws/", "expected ws://HOST/"),
    ],
)
def test_a_url_that_is_none(
    installation: Installation, capsys: pytest.CaptureFixture[str], given: str, sentence: str
) -> None:
    assert main(["doctor", "--config", str(installation.config), "--url", given]) == 77
    assert sentence in capsys.readouterr().err


def test_the_list_for_people(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    installation.start()
    assert (
        main(["doctor", "--config", str(installation.config), *url(installation), "--instance", "acme"]) == 1
    )
    said = capsys.readouterr().out
    assert "[ ok ] configuration" in said
    assert "[FAIL] URL" in said
    assert said.endswith("What to change: write it into the path: /ws/~acme/.\n")


def test_help_has_examples_and_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "aphlict doctor --url wss://" in said
    assert "exit status" in said


def test_json_has_every_check(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    installation.start()
    assert main(["doctor", "--config", str(installation.config), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["well"]
    assert said["first"] is None
    assert {"check", "verdict", "says", "change"} == set(said["checks"][0])
