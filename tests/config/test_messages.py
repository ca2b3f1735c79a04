"""The keys that say who may speak to a server: `origins`, `admin.…` and `ssl.ca`, and those of the cluster."""

from pathlib import Path
from typing import Any

import pytest

from aphlict.config.files import read_secrets
from aphlict.config.loader import load
from aphlict.errors import ConfigError
from tests.support.configuration import ADMIN, CLIENT, write_configuration

SECRET, ANOTHER = "a-secret-of-many-letters", "another-secret-of-many-letters"


def refusal(folder: Path, **changes: Any) -> str:
    path = write_configuration(folder, **changes)
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value).removeprefix(f"{path}: ")


def refusal_of_client(folder: Path, **keys: Any) -> str:
    return refusal(folder, servers=[CLIENT | keys, ADMIN])


def refusal_of_admin(folder: Path, **keys: Any) -> str:
    return refusal(folder, servers=[CLIENT, ADMIN | keys])


def test_an_origin_that_is_none(tmp_path: Path) -> None:
    assert refusal_of_client(tmp_path, origins=["https://a.example", "a.example"]) == (
        'servers[0].origins[1] is "a.example", expected an origin such as https://example.com, or *.example.com '
        "(https://a.example or http://a.example: a page without TLS has another origin)"
    )


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"origins": ["https://a.example"]}, "client"),
        ({"ssl.ca": "/x"}, "admin"),
        ({"admin.secret": SECRET}, "admin"),
        ({"admin.secret.file": "/x"}, "admin"),
        ({"admin.hosts": ["a.example"]}, "admin"),
        ({"metrics.secret": SECRET}, "admin"),
    ],
)
def test_keys_of_one_type_of_server(tmp_path: Path, keys: dict[str, Any], kind: str) -> None:
    refused = refusal_of_admin if kind == "client" else refusal_of_client
    assert f'expected it only on a server of type "{kind}"' in refused(tmp_path, **keys)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"admin.secret": "short"}, 'admin.secret is "…", expected text of at least 16 characters or null'),
        (
            {"admin.secret": "sixteen letters, and more"},
            'admin.secret is "…", expected printable ASCII characters without spaces',
        ),
        ({"admin_secret": SECRET}, "admin_secret is an unknown key, expected"),
        ({"admin.secrt": SECRET}, "admin.secrt is an unknown key, expected servers[1].admin.secret"),
        ({"admin.password": SECRET}, "admin.password is an unknown key, expected"),
        ({"admin.secret": 1234567890123456}, 'admin.secret is "…", expected text'),
        (
            {"admin.secret": SECRET, "admin.secret.file": "/x"},
            'admin.secret.file is "/x", expected no servers[1].admin.secret beside it (one of the two)',
        ),
        (
            {"metrics.secret": "short"},
            'metrics.secret is "…", expected text of at least 16 characters or null',
        ),
        (
            {"metrics.secret": "sixteen letters, and more"},
            'metrics.secret is "…", expected printable ASCII characters without spaces',
        ),
        (
            {"admin.secret": SECRET, "metrics.secret": SECRET},
            'metrics.secret is "…", expected another secret than servers[1].admin.secret (who reads metrics could',
        ),
        ({"admin.hosts": ["a:22281"]}, 'admin.hosts[0] is "a:22281", expected a name such as'),
        ({"admin.hosts": "a.example"}, 'admin.hosts is "a.example", expected a list of names'),
        ({"ssl.ca": "/x"}, 'ssl.ca is "/x", expected servers[1].ssl.key and servers[1].ssl.cert beside it'),
    ],
)
def test_what_an_admin_server_cannot_have(tmp_path: Path, keys: dict[str, Any], sentence: str) -> None:
    refused = refusal_of_admin(tmp_path, **keys)
    assert refused.startswith(f"servers[1].{sentence}")
    assert SECRET not in refused


@pytest.mark.parametrize("key", ["admin.secret", "admin.secrt", "password"])
@pytest.mark.parametrize(
    "text",
    [
        '"{key}": "{secret}", "{key}": "{secret}"',
        '"{key}" "{secret}"',
        '"{key}": {secret}',
        '"{key}": "{secret}',
    ],
)
def test_a_mistake_shows_no_secret(tmp_path: Path, key: str, text: str) -> None:
    path = write_configuration(tmp_path, servers=[CLIENT, ADMIN | {"admin.secret": SECRET}])
    right, wrong = f'"admin.secret": "{SECRET}"', text.format(key=key, secret=SECRET)
    path.write_text(path.read_text().replace(right, wrong))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert SECRET not in str(caught.value)


def test_a_file_of_a_secret_in_the_place_of_the_configuration(tmp_path: Path) -> None:
    for content in (SECRET, f'"{SECRET}"', "1234567890123456"):
        path = tmp_path / "secret"
        path.write_text(content)
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert content.strip('"') not in str(caught.value)


@pytest.mark.parametrize("key", ["ssl.key", "auth.keys", "admin.secret.file"])
def test_a_private_key_in_the_place_of_its_file_is_not_shown(tmp_path: Path, key: str) -> None:
    pem = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqG\n-----END PRIVATE KEY-----\n"
    server = (
        {"ssl.key": pem, "ssl.cert": "/x"}
        if key == "ssl.key"
        else {key: [pem] if key == "auth.keys" else pem}
    )
    refused = refusal_of_admin if key == "admin.secret.file" else refusal_of_client
    assert "MIGH" not in refused(tmp_path, **server)


def written(folder: Path, content: str) -> str:
    path = folder / "secret"
    path.write_text(content)
    return str(path)


@pytest.mark.parametrize(
    ("content", "secrets"),
    [(SECRET, (SECRET,)), (f"{SECRET}\n\n{ANOTHER}\r\n", (SECRET, ANOTHER))],
)
def test_secrets_in_a_file(tmp_path: Path, content: str, secrets: tuple[str, ...]) -> None:
    written(tmp_path, content)
    path = write_configuration(tmp_path, servers=[CLIENT, ADMIN | {"admin.secret.file": "secret"}])
    assert load(path).servers[1].secrets == secrets
    assert load(path, files=False).servers[1].secrets == ()
    assert read_secrets(load(path, files=False)).servers[1].secrets == secrets


@pytest.mark.parametrize("content", ["", "short", f"{SECRET}\nshort", "müllers-secret-of-many-letters"])
def test_a_file_that_holds_none(tmp_path: Path, content: str) -> None:
    path = written(tmp_path, content)
    sentence = refusal_of_admin(tmp_path, **{"admin.secret.file": path})
    assert sentence.startswith(f'servers[1].admin.secret.file is "{path}", expected a file ')
    assert SECRET not in sentence


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert refusal_of_admin(tmp_path, **{"admin.secret.file": "/nowhere"}) == (
        'servers[1].admin.secret.file is "/nowhere", expected a file that can be read (No such file or directory)'
    )


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"ssl.cert": "/x"}, 'ssl.cert is "/x", expected cluster[0].ssl.key beside it'),
        (
            {"ssl.cert": "/x", "ssl.key": "/y"},
            'ssl.cert is "/x", expected cluster[0].protocol "https" beside it (plain HTTP has no certificates)',
        ),
        ({"secret": "short"}, 'secret is "…", expected text of at least 16 characters or null'),
    ],
)
def test_what_a_peer_cannot_have(tmp_path: Path, keys: dict[str, Any], sentence: str) -> None:
    peer = {"host": "a", "port": 1, **keys}
    assert refusal(tmp_path, cluster=[peer]).startswith(f"cluster[0].{sentence}")
