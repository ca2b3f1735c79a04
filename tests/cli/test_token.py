"""`token`, and the commands that present one."""

import subprocess
import time
from pathlib import Path
from typing import Any

import jwt
import psutil
import pytest

from aphlict.cli.main import main
from tests.cli.test_messages import subscribing
from tests.support.installation import Installation, environment
from tests.support.tokens import ALGORITHMS, jwks, key_file, pair


def guard(installation: Installation, *files: str, **more: object) -> None:
    """Make the client server require tokens."""
    client = {
        "type": "client",
        "port": installation.client_port,
        "listen": "127.0.0.1",
        "auth.keys": files,
    }
    admin = {"type": "admin", "port": installation.admin_port}
    installation.write(servers=[{**client, **more}, admin])


def make(installation: Installation, *options: str) -> str:
    """Return the token that the command prints."""
    done = installation.run("token", *options)
    assert done.returncode == 0, done.stderr
    return str(done.stdout).strip()


def read(text: str, algorithm: str, number: int = 0, **options: Any) -> dict[str, Any]:
    signer = pair(algorithm, number).signer
    key = signer if algorithm == "HS256" else signer.public_key()
    claims: dict[str, Any] = jwt.decode(text, key, algorithms=[algorithm], **options)
    return claims


def test_the_first_secret_signs(installation: Installation) -> None:
    folder = installation.folder
    files = key_file(folder, pair("ES256").public, "es.pem"), key_file(folder, name="2026-01.key")
    guard(installation, *files)
    text = make(installation, "--channel", "a", "--channel", "b-*")
    claims = read(text, "HS256")
    assert claims.pop("exp") == pytest.approx(time.time() + 3600, abs=10)
    assert claims == {"channels": ["a", "b-*"]}
    assert jwt.get_unverified_header(text)["kid"] == "2026-01"


def test_all_options(installation: Installation) -> None:
    files = [key_file(installation.folder, pair("HS256", each).public, f"{each}.key") for each in (0, 1)]
    guard(installation, *files, **{"auth.audience": "notify"})
    options = "--channel", "a", "--instance", "acme", "--sub", "alice", "--ttl", "15m", "--key", "1"
    claims = read(make(installation, *options), "HS256", 1, audience="notify")
    assert claims.pop("exp") == pytest.approx(time.time() + 900, abs=10)
    assert claims == {"channels": ["a"], "instance": "acme", "sub": "alice", "aud": "notify"}
    assert read(make(installation, *options, "--audience", "x"), "HS256", 1, audience="x")["aud"] == "x"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_private_key_signs_with_the_id_of_its_public_key(
    algorithm: str, installation: Installation
) -> None:
    guard(
        installation, key_file(installation.folder, jwks({**pair(algorithm).jwk, "kid": "main"}), "keys.json")
    )
    private = key_file(installation.folder, pair(algorithm).private, "private.pem")
    text = make(installation, "--channel", "a", "--key", private)
    assert read(text, algorithm)["channels"] == ["a"]
    assert jwt.get_unverified_header(text)["kid"] == "main"


def test_a_key_that_is_not_configured_signs_with_a_warning(installation: Installation) -> None:
    private = key_file(installation.folder, pair("ES256").private, "private.pem")
    done = installation.run("token", "--channel", "a", "--key", private)
    assert "Warning: no server in" in done.stderr
    assert read(done.stdout.strip(), "ES256")["channels"] == ["a"]
    assert "kid" not in jwt.get_unverified_header(done.stdout.strip())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "the following arguments are required: --channel"),
        (("--channel", "a", "--ttl", "soon"), "--ttl: soon is invalid"),
        (("--channel", "a", "--ttl", "0"), "--ttl: 0 is invalid"),
        (("--channel", "a", "--ttl", "367d"), "--ttl: 367d exceeds 366d"),
        (
            ("--channel", "a", "--key", "none"),
            "--key is none, expected a file, or one of the secrets in auth.keys: main",
        ),
        (
            ("--channel", "a", "--key", "es"),
            "the key es is a public key",
        ),
        (("--channel", "a", "--key", "./none.pem"), "expected a file that can be read"),
    ],
)
def test_tokens_that_cannot_be_created(
    options: tuple[str, ...], sentence: str, installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    guard(
        installation,
        key_file(installation.folder, pair("ES256").public, "es.pem"),
        key_file(installation.folder),
    )
    assert main(["token", "--config", str(installation.config), *options]) == 77
    assert sentence in capsys.readouterr().err


def test_without_a_secret_a_file_is_required(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "--config", str(installation.config), "--channel", "a"]) == 77
    assert "auth.keys contains no secret" in capsys.readouterr().err


def test_subscribe_presents_its_token(installation: Installation) -> None:
    guard(installation, key_file(installation.folder))
    installation.start()
    with subscribing(installation, "--token", make(installation, "--channel", "demo"), "demo") as subscriber:
        assert installation.post({"subscribers": ["demo"], "n": 1})[0] == 200
        assert subscriber.messages.get(timeout=10)["n"] == 1


def test_a_token_in_a_file_is_not_visible_in_ps(installation: Installation) -> None:
    guard(installation, key_file(installation.folder))
    installation.start()
    text = make(installation, "--channel", "demo")
    path = installation.folder / "token"
    path.write_text(f"{text}\n")
    with subscribing(installation, "--token-file", str(path), "demo") as subscriber:
        assert installation.post({"subscribers": ["demo"], "n": 1})[0] == 200
        assert subscriber.messages.get(timeout=10)["n"] == 1
        assert not any(text in word for word in psutil.Process(subscriber.process.pid).cmdline())


@pytest.mark.parametrize("command", [("subscribe", "demo"), ("doctor",)])
def test_a_token_from_standard_input(installation: Installation, command: tuple[str, ...]) -> None:
    """The server rejects both, for different reasons: so it received them."""
    guard(installation, key_file(installation.folder))
    installation.start()
    words = installation.words(*command, "--token-file", "-")
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    for text, part in (("a.b.c\n", "JWT header"), (make(installation, "--channel", "x"), "channel")):
        done = subprocess.run(words, input=text, env=environment(), timeout=30, check=False, **streams)
        assert (done.returncode, part in done.stdout) == (1, True), done.stdout


@pytest.mark.parametrize("command", [["subscribe", "demo"], ["doctor"]])
@pytest.mark.parametrize(
    "content", [b"", b"\n", b"geheim two", b"geheim\ngeheim", b"geheim\xff", b"geheim" * 20_000, None]
)
def test_a_file_without_a_token(
    command: list[str], content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    assert main([*command, "--token-file", str(path)]) == 77
    err = capsys.readouterr().err
    assert err.startswith(f"aphlict: argument --token-file: {path} ")
    assert err.count("\n") == 1
    assert "geheim" not in err


@pytest.mark.parametrize("options", [["--token", "geheim x"], ["--token", ""], ["--token", "geheim\n"]])
@pytest.mark.parametrize("command", [["subscribe", "demo"], ["doctor"]])
def test_an_invalid_token(command: list[str], options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, *options]) == 77
    err = capsys.readouterr().err
    assert err.startswith("aphlict: argument --token: ")
    assert "geheim" not in err


def test_two_tokens_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "token"
    path.write_text("a.b.c")
    assert main(["subscribe", "demo", "--token", "a.b.c", "--token-file", str(path)]) == 77
    assert "not allowed with" in capsys.readouterr().err


def test_a_token_in_a_url_is_not_printed(installation: Installation) -> None:
    guard(installation, key_file(installation.folder))
    installation.start()
    text = make(installation, "--channel", "demo", "--channel", "aphlict-doctor-*")
    url = f"ws://127.0.0.1:{installation.client_port}/ws/?x=1&token={text}"
    with subscribing(installation, "--url", url, "demo") as subscriber:
        assert installation.post({"subscribers": ["demo"], "n": 1})[0] == 200
        assert subscriber.messages.get(timeout=10)["n"] == 1
        assert any("/ws/?x=1" in line for line in subscriber.notes)
    assert not any("token=" in line for line in subscriber.notes)
    done = installation.run("doctor", "--url", url)
    assert done.returncode == 0, done.stdout
    assert "token=" not in done.stdout + done.stderr


def test_subscribe_exits_if_its_token_is_rejected(installation: Installation) -> None:
    guard(installation, key_file(installation.folder))
    installation.start()
    done = installation.run("subscribe", "--token", "a.b.c", "demo")
    assert done.returncode == 1
    assert "rejected the token (" in done.stderr
    assert "--token-file" in done.stderr
    done = installation.run("subscribe", "demo")
    assert done.returncode == 1
    assert "requires a token" in done.stderr
    assert "--token-file" in done.stderr
    short = make(installation, "--channel", "demo", "--ttl", "1s")
    done = installation.run("subscribe", "--token", short, "demo")
    assert done.returncode == 1
    assert "expired" in done.stderr
    assert "--token-file" in done.stderr


def test_the_server_does_not_start_with_an_invalid_key(installation: Installation, tmp_path: Path) -> None:
    guard(installation, key_file(tmp_path, b"short"))
    for command in ("start", "check"):
        done = installation.run(command)
        assert done.returncode == 77
        assert "expected a secret of at least 32 bytes" in done.stderr
