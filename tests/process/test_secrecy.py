"""No private key, secret or token is in what a server and its commands write, whatever happens to them."""

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import connect

from tests.support import certificates
from tests.support.installation import Installation
from tests.support.tokens import key_file, pair, token
from tests.support.waiting import wait_until

OWN, PEERS, WRONG = "own-secret-of-the-admin-port", "secret-of-the-other-node", "wrong-secret-of-a-stranger"
PIECE = 12  # letters of a secret that are too many
TRUSTING = ssl._create_unverified_context()


@pytest.fixture
def tokens() -> dict[str, str]:
    """One that is good, one of another key, one that is none."""
    return {
        "good": token("demo", "aphlict-doctor-*"),
        "bad": token("demo", by=pair("HS256", 1)),
        "broken": "eyJhbGciOiJIUzI1NiJ9.nonsense-claims.nonsense-signature",
    }


@pytest.fixture
def guarded(installation: Installation) -> Installation:
    """With all the secrets that a configuration can hold."""
    files = certificates.self_signed().write(installation.folder).settings()
    client, admin = json.loads(installation.config.read_text())["servers"]
    peer = {"host": "127.0.0.1", "port": installation.admin_port, "secret": PEERS}
    installation.write(
        servers=[
            client | files | {"auth.keys": [key_file(installation.folder)]},
            admin | {"admin.secret": OWN},
        ],
        cluster=[peer, {"host": "127.0.0.1", "port": 9, "protocol": "https"}],
        logs=[
            {"path": str(installation.log)},
            {"path": str(installation.folder / "log.json"), "format": "json", "level": "debug"},
        ],
    )
    return installation


def publish(installation: Installation, secret: str) -> None:
    url = f"http://127.0.0.1:{installation.admin_port}/?secret={secret}"
    body = json.dumps({"subscribers": ["demo"], "text": "hello"}).encode()
    request = urllib.request.Request(url, body, {"Authorization": f"Bearer {secret}"})
    with suppress(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=5).close()


def show(installation: Installation, text: str) -> None:
    """Show a token in every way that there is."""
    url = f"wss://127.0.0.1:{installation.client_port}/ws/"
    ways: list[tuple[str, dict[str, Any]]] = [
        (f"{url}?token={text}", {}),
        (url, {"additional_headers": {"Authorization": f"Bearer {text}"}}),
        (url, {"subprotocols": ["aphlict", f"token.{text}"]}),
        (url, {}),
    ]
    for where, options in ways:
        with suppress(InvalidHandshake), connect(where, ssl=TRUSTING, **options) as browser:
            for command in ("auth", "subscribe", "nonsense"):
                browser.send(json.dumps({"command": command, "data": text, "id": 1}))
                browser.recv(timeout=10)
    for page in ("events", "poll", "status", "nothing"):
        url = f"https://127.0.0.1:{installation.client_port}/ws/{page}?token={text}&wait=x"
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(url, timeout=5, context=TRUSTING).close()


def commands(installation: Installation, text: str) -> Iterator["subprocess.CompletedProcess[str]"]:
    """Return the output of the commands that use a secret or a token."""
    for words in (("status",), ("status", "--json"), ("check",), ("publish", "demo", "--message", "x")):
        yield installation.run(*words)
    url = f"wss://127.0.0.1:{installation.client_port}/ws/"
    yield installation.run("doctor", "--token", text)
    yield installation.run("doctor", "--json", "--url", f"{url}?token={text}")
    yield installation.run("subscribe", "channel-of-another", "--insecure", "--url", f"{url}?token={text}")


def pieces(secret: str) -> set[str]:
    return {secret[at : at + PIECE] for at in range(len(secret) - PIECE + 1)}


def test_no_secret_in_the_output_of_a_server_and_its_commands(
    guarded: Installation, tokens: dict[str, str]
) -> None:
    keys = Path(guarded.folder / "main.key").read_text().strip()
    private = "".join((guarded.folder / "server.key").read_text().splitlines()[1:-1])
    with guarded.begin("debug") as server:
        wait_until(lambda: guarded.logged("listens on"), "the server")
        for secret in (OWN, PEERS, WRONG):
            publish(guarded, secret)
        for text in tokens.values():
            show(guarded, text)
        said = [f"{done.stdout}{done.stderr}" for text in tokens.values() for done in commands(guarded, text)]
        wait_until(lambda: guarded.logged("peer"), "the peers that refuse or are away")
        server.terminate()
        _, trace = server.communicate(timeout=20)
    structured = (guarded.folder / "log.json").read_text()
    said += [trace, guarded.log.read_text(), structured]
    assert '"event": "token_accepted"' in structured
    assert "may subscribe to" in trace
    assert "admin.secret refused" in trace
    header = len(tokens["good"].split(".")[0])  # it is the same for all tokens, and no secret
    secrets = [OWN, PEERS, WRONG, keys, private, *(text[header:] for text in tokens.values())]
    for secret in secrets:
        found = [piece for piece in pieces(secret) if any(piece in text for text in said)]
        assert found == []
