"""docs/authentication.md matches the code: its programs create tokens that the server accepts, its commands keys."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aphlict.config.settings import ServerSettings
from aphlict.tokens.grant import Grant
from aphlict.tokens.key_set import load
from tests.docs.pages import ROOT, examples
from tests.proxies.programs import require

PAGE = ROOT / "docs/authentication.md"
TEXT = PAGE.read_text()
SECRET = "/etc/aphlict/2026-01.key"


def run(*words: str, folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


def verified(token: str, *files: Path) -> Grant:
    keys = load(ServerSettings(type="client", port=1, auth_keys=tuple(map(str, files))))
    assert keys is not None
    return keys.verify(token, time.time(), lambda _cost: None)


@pytest.mark.parametrize(("language", "program"), [("python", sys.executable), ("php", "php")])
def test_tokens_of_backends(language: str, program: str, tmp_path: Path) -> None:
    [example] = examples(PAGE, language)
    secret = tmp_path / "2026-01.key"
    secret.write_text(run("openssl", "rand", "-hex", "32", folder=tmp_path) + "\n")
    (tmp_path / "example").write_text(example.text.replace(SECRET, str(secret)))
    token = run(require(program, program), "example", folder=tmp_path)
    grant = verified(token, secret)
    assert grant.sub == "alice"
    assert grant.names == {"PHID-USER-1234"}
    assert grant.prefixes == ("PHID-TASK-",)


def test_the_key_pair_and_its_line_of_python(tmp_path: Path) -> None:
    [commands] = [each.text for each in examples(PAGE, "sh") if "genpkey" in each.text]
    run("sh", "-ec", commands, folder=tmp_path)
    found = re.search(r"`(jwt\.encode\(claims, Path.*)`", TEXT)
    assert found
    program = (
        "import time, jwt\nfrom pathlib import Path\n"
        f"claims = {{'channels': ['a'], 'exp': int(time.time()) + 60}}\nprint({found[1]})"
    )
    token = run(sys.executable, "-c", program, folder=tmp_path)
    assert verified(token, tmp_path / "2026-01.pem").allows("a")


@pytest.mark.parametrize("row", re.findall(r"^\| a .* \| (\w+) \| `(openssl [^`]+)` \|$", TEXT, re.MULTILINE))
def test_the_table_of_keys(row: tuple[str, str], tmp_path: Path) -> None:
    algorithm, command = row
    more = "" if algorithm == "HS256" else " | openssl pkey -pubout"
    key = tmp_path / "key"
    key.write_text(run("sh", "-ec", command + more, folder=tmp_path))
    keys = load(ServerSettings(type="client", port=1, auth_keys=(str(key),)))
    assert keys is not None
    assert [each.algorithm for each in keys] == [algorithm]


def test_the_table_of_keys_is_complete() -> None:
    assert len(re.findall(r"^\| a .* \| (HS256|RS256|ES256|EdDSA) \| `openssl", TEXT, re.MULTILINE)) == 4


@pytest.mark.parametrize("sentence", re.findall(r"^\| \*([^*]+?)(?: …)?\*", TEXT, re.MULTILINE))
def test_the_sentences_are_those_of_the_code(sentence: str) -> None:
    sources = "".join(path.read_text() for path in (ROOT / "aphlict/tokens").glob("*.py"))
    assert sentence in sources
