"""Invalid command lines, and `--help`."""

import pytest

from aphlict import __version__
from aphlict.cli.main import COMMANDS, main, parse
from tests.support.installation import Installation


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["strat"], "invalid choice"),
        (["start", "--cofnig", "x"], "unrecognized arguments: --cofnig x"),
        (["start", "--config"], "expected one argument"),
        (["listen"], "required: CHANNEL"),
        (
            ["subscribe", "a", "--url", "http://localhost"],
            "--url is http://localhost, expected ws://localhost",
        ),
        (
            ["subscribe", "a", "--url", "ws://localhost/~x/", "--instance", "y"],
            "already contains an instance",
        ),
        (["publish", "a"], "one of the arguments --message --data is required"),
        (["publish", "a", "--message", "x", "--data", "{}"], "not allowed with argument"),
        (["publish", "--message", "x"], "CHANNEL is missing"),
        (["publish", "a", "--data", "{"], "--data is not JSON"),
        (["publish", "a", "--data", "[]"], "--data is not a JSON object"),
        (["start", "--config", "/no/such/file"], "/no/such/file"),
        (["token", "--channel", "a", "--ttl", "1y"], "1y is invalid, expected a lifetime such as 90s"),
        (["demo", "--port", "65536"], "65536 is invalid"),
        (["demo", "--client-port", "6000"], "browsers block this one"),
        (["demo", "--listen", ""], "--listen is empty"),
        (["subscribe", "a", "--instance", "\udcff"], "is not UTF-8"),
        (["doctor", "--origin", "https://host:99999"], "--origin is https://host:99999"),
        (["doctor", "--idle", "nan"], "nan is invalid"),
        (["doctor", "--idle", "-1"], "-1 is invalid"),
    ],
)
def test_usage_errors_exit_with_77(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 77
    _, err = capsys.readouterr()
    assert err.startswith("aphlict: ")
    assert part in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "ws://",
        "ws://:80/",
        "ws://[bad",
        "ws://[zz]:1/",
        "ws://localhost:99999/",
        "ws://localhost:0/",
        "ws://localhost:-1/",
        "ws://localhost:name/",
        "ws://two words/",
        "ws://two..dots/",
        f"ws://{'x' * 64}/",
        "ws://host\udcff/",
        "ws://host/path\udcff",
        "ws://host/a\tb",
        "ws://host/~%ff/",
        "ws://user:geheim@host/",
        "ws://[bad/?token=geheim",
        "ws://host:99999/?token=geheim",
    ],
)
@pytest.mark.parametrize("command", [["subscribe", "a"], ["doctor"]])
def test_an_invalid_url_is_a_usage_error(
    command: list[str], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--url", url]) == 77
    out, err = capsys.readouterr()
    assert err.startswith("aphlict: --url is ")
    assert err.count("\n") == 1
    assert "geheim" not in out + err


def test_a_missing_command_prints_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 77
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\naphlict: COMMAND is missing\n")
    assert all(f"\n    {command} " in err for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    out, _ = capsys.readouterr()
    assert f"examples:\n  aphlict {command}" in out
    assert "--config FILE" in out


@pytest.mark.parametrize(("alias", "command"), [("notify", "publish"), ("listen", "subscribe")])
def test_aliases(alias: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([alias, "--help"], ["--help"]):
        with pytest.raises(SystemExit):
            main(words)
    out, _ = capsys.readouterr()
    assert out.startswith(f"usage: aphlict {command} ")
    assert f"\n    {command} ({alias})" in out
    assert parse([alias, "demo", *(["--message", "x"] if command == "publish" else [])]).command == command


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out, _ = capsys.readouterr()
    assert all(f"\n    {command} " in out for command in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"aphlict {__version__}\n")


@pytest.mark.parametrize("command", ["start", "stop", "restart", "status", "debug", "check"])
def test_an_invalid_configuration_exits_with_77_and_one_sentence(
    installation: Installation, command: str
) -> None:
    installation.config.write_text('{"servers": 1}')
    done = installation.run(command)
    assert done.returncode == 77
    assert done.stderr.startswith(f"aphlict: {installation.config}: ")
    assert done.stderr.count("\n") == 1


def test_an_unexpected_error_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(name: str) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("importlib.import_module", fail)
    assert main(["status"]) == 1
    assert capsys.readouterr().err == "aphlict: unexpected ZeroDivisionError: by nothing\n"
