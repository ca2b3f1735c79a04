"""The doctor's checks of this machine, and its output."""

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
    """Return the option for the client port."""
    return "--url", f"ws://localhost:{installation.client_port}{path}"


def test_a_server_that_passes_all_checks(installation: Installation, doctor: Doctor) -> None:
    installation.start()
    diagnosis = doctor.examine(installation)
    assert diagnosis.status == 0
    assert diagnosis.verdicts("delivery") == ["ok"]
    assert diagnosis.verdicts("proxy") == ["skipped"]


def test_a_server_with_several_workers(installation: Installation, doctor: Doctor) -> None:
    installation.write(workers=2)
    installation.start()
    assert doctor.examine(installation).status == 0


def test_a_server_that_is_not_running(installation: Installation, doctor: Doctor) -> None:
    port = f"client port {installation.client_port}"
    doctor.examine(installation).expect(port, "not_running")


def test_an_invalid_configuration(installation: Installation, doctor: Doctor) -> None:
    installation.config.write_text("{")
    diagnosis = doctor.examine(installation)
    assert diagnosis.status == 77
    first = diagnosis.first_failure
    assert (first["check"], first["code"]) == ("configuration", "config_invalid")
    assert str(installation.config) in first["message"]


def test_a_key_of_another_certificate(installation: Installation, doctor: Doctor, tmp_path: Path) -> None:
    good, other = (
        certificates.self_signed().write(tmp_path, "a"),
        certificates.self_signed().write(tmp_path, "b"),
    )
    client = {"type": "client", "port": installation.client_port, "ssl.key": other.key, "ssl.cert": good.cert}
    installation.write(servers=[client, {"type": "admin", "port": installation.admin_port}])
    diagnosis = doctor.examine(installation)
    assert diagnosis.status == 77
    first = diagnosis.first_failure
    assert (first["check"], first["code"]) == ("certificates", "certificate_invalid")
    assert "ssl.key" in first["message"]


def test_a_log_that_is_a_directory(installation: Installation, doctor: Doctor) -> None:
    installation.log.mkdir(parents=True)
    doctor.examine(installation).expect("files", "file_error", str(installation.log))


def test_a_log_that_is_a_device(installation: Installation, doctor: Doctor) -> None:
    installation.log = Path("/dev/stderr")
    installation.write()
    assert doctor.examine(installation).verdicts("files") == ["ok"]


def test_a_server_that_was_killed(installation: Installation, doctor: Doctor) -> None:
    installation.start().kill()
    wait_until(lambda: installation.answers() is None, "the worker's end")
    [process] = doctor.examine(installation).of("process")
    assert process["verdict"] == "skipped"
    assert f"the process in {installation.pidfile} does not exist" in process["message"]


def test_a_port_that_belongs_to_another_program(installation: Installation, doctor: Doctor, ssh: int) -> None:
    client = {"type": "client", "port": ssh, "listen": "127.0.0.1"}
    installation.write(servers=[client, {"type": "admin", "port": installation.admin_port}])
    pid = psutil.Process().pid
    doctor.examine(installation).expect(f"client port {ssh}", "not_http", f"process {pid}")


def test_a_low_limit_of_descriptors(installation: Installation, doctor: Doctor) -> None:
    installation.start()
    worker = installation.worker()
    worker.rlimit(psutil.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    doctor.examine(installation).expect_warning("file descriptors", "descriptor_limit_low", "64")


def test_a_host_without_an_address(installation: Installation, doctor: Doctor) -> None:
    installation.start()
    diagnosis = doctor.examine(installation, "--url", "wss://notify.invalid/ws/")
    diagnosis.expect("DNS", "dns_failed", "notify.invalid")


def test_a_port_on_which_nothing_listens(installation: Installation, doctor: Doctor) -> None:
    installation.start()
    with listening() as sock:
        port = sock.getsockname()[1]
    diagnosis = doctor.examine(installation, "--url", f"ws://localhost:{port}/ws/")
    diagnosis.expect("TCP", "connection_refused", f"port {port} of localhost")


def test_a_port_that_browsers_block(installation: Installation, doctor: Doctor) -> None:
    installation.start()
    diagnosis = doctor.examine(installation, "--url", "ws://localhost:6000/ws/")
    diagnosis.expect("URL", "port_blocked", "6000")


def test_a_port_that_does_not_speak_http(installation: Installation, doctor: Doctor, ssh: int) -> None:
    installation.start()
    diagnosis = doctor.examine(installation, "--url", f"ws://localhost:{ssh}/ws/")
    diagnosis.expect("upgrade", "not_http", "SSH-2.0")


def test_a_proxy_that_responds_in_http_1_0(
    installation: Installation, doctor: Doctor, old_proxy: int
) -> None:
    installation.start()
    diagnosis = doctor.examine(installation, "--url", f"ws://localhost:{old_proxy}/ws/")
    diagnosis.expect("upgrade", "path_not_forwarded", "'old/1.0'", "404")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("https://example.org/ws/", "expected wss://example.org"),
        ("example.org/ws/", "expected ws://HOST/"),
        ("ws://example.org:99999/", "Port out of range"),
        ("ws:///ws/", "expected ws://HOST/"),
    ],
)
def test_an_invalid_url(
    installation: Installation, capsys: pytest.CaptureFixture[str], given: str, sentence: str
) -> None:
    assert main(["doctor", "--config", str(installation.config), "--url", given]) == 77
    assert sentence in capsys.readouterr().err


def test_the_text_output(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    installation.start()
    assert (
        main(["doctor", "--config", str(installation.config), *url(installation), "--instance", "acme"]) == 1
    )
    output = capsys.readouterr().out
    assert "[ ok ] configuration" in output
    assert "[FAIL] URL" in output
    assert "(instance_mismatch)" in output
    assert output.endswith("What to change: add it to the path: /ws/~acme/.\n")


def test_help_has_examples_and_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "aphlict doctor --url wss://" in said
    assert "exit status" in said


def test_the_json_output(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    installation.start()
    assert main(["doctor", "--config", str(installation.config), "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert set(output) == {"ok", "first_failure", "checks"}
    assert output["ok"]
    assert output["first_failure"] is None
    assert set(output["checks"][0]) == {"check", "verdict", "code", "message", "remedy"}
