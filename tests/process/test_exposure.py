"""Warnings of files with secrets that every user of the machine can read."""

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aphlict.config.loader import load
from aphlict.process.bootstrap import find_exposed_files
from tests.support import certificates
from tests.support.configuration import ADMIN, CLIENT, write_configuration
from tests.support.installation import Installation, installed
from tests.support.tokens import key_file, pair

SECRET = "a-secret-of-many-letters"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others can enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def served(folder: Path) -> Iterator[Installation]:
    with installed(folder) as made:
        yield made


def secret_file(folder: Path, mode: int = 0o644) -> Path:
    path = folder / "secret"
    path.write_text(SECRET)
    path.chmod(mode)
    return path


def exposed(folder: Path, **changes: Any) -> list[str]:
    """The keys of the warnings."""
    path = write_configuration(folder, **changes)
    path.chmod(0o644)
    return [sentence.split()[0] for sentence in find_exposed_files(path, load(path))]


def with_keys(*paths: str) -> dict[str, Any]:
    return {"servers": [CLIENT | {"auth.keys": list(paths)}, ADMIN]}


def test_every_kind_of_secret(folder: Path) -> None:
    files = certificates.self_signed().write(folder).settings()
    Path(str(files["ssl.key"])).chmod(0o644)
    peer = {"host": "a", "port": 1, "protocol": "https", "secret": SECRET}
    servers = [
        CLIENT | files,
        ADMIN | {"admin.secret": SECRET},
        ADMIN | {"port": 3, "admin.secret.file": str(secret_file(folder)), "metrics.secret": SECRET * 2},
    ]
    assert exposed(folder, servers=servers, cluster=[peer]) == [
        "servers[0].ssl.key",
        "servers[1].admin.secret",  # and the peer's, which is in the same file
        "servers[2].admin.secret.file",
    ]


@pytest.mark.parametrize(
    ("mode", "count"), [(0o644, 1), (0o604, 1), (0o602, 1), (0o660, 0), (0o600, 0), (0o601, 0)]
)
def test_permissions_of_others_matter(folder: Path, mode: int, count: int) -> None:
    server = ADMIN | {"admin.secret.file": str(secret_file(folder, mode))}
    assert len(exposed(folder, servers=[CLIENT, server])) == count


def test_files_in_an_inaccessible_folder_are_not_exposed(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir(mode=0o750)
    (folder / "link").symlink_to(secret_file(inner))
    server = ADMIN | {"admin.secret.file": str(folder / "link")}
    assert exposed(folder, servers=[CLIENT, server]) == []
    inner.chmod(0o755)
    assert exposed(folder, servers=[CLIENT, server]) == ["servers[1].admin.secret.file"]


def test_keys_that_sign_tokens_are_secrets_and_public_keys_are_not(folder: Path) -> None:
    secret = key_file(folder, pair("HS256").public, "secret")
    public = key_file(folder, pair("ES256").public, "public.pem")
    assert exposed(folder, **with_keys(public)) == []
    assert exposed(folder, **with_keys(public, secret)) == ["servers[0].auth.keys"]


def test_a_configuration_without_secrets_may_be_read(folder: Path) -> None:
    assert exposed(folder) == []


@pytest.mark.parametrize("command", ["check", "start"])
def test_the_command_in_the_warning_fixes_it(served: Installation, command: str) -> None:
    servers = json.loads(served.config.read_text())["servers"]
    quoted = served.folder / "two words"
    quoted.mkdir()
    servers[1]["admin.secret.file"] = str(secret_file(quoted))
    served.write(servers=servers)
    [warning] = [line for line in served.run(command).stderr.splitlines() if "every user" in line]
    subprocess.run(warning.split(" machine: ")[1], shell=True, check=True)
    assert (quoted / "secret").stat().st_mode & 0o777 == 0o640
    served.run("stop")
    done = served.run(command)
    assert (done.returncode, "every user" in done.stderr) == (0, False)


def test_the_log_has_the_warning(served: Installation) -> None:
    servers = json.loads(served.config.read_text())["servers"]
    servers[1]["admin.secret"] = SECRET
    served.write(servers=servers)
    served.config.chmod(0o644)
    served.run("start")
    assert served.logged(f"servers[1].admin.secret in {served.config} is accessible to every user")
    assert not served.logged(SECRET)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a server for another user")
def test_the_group_of_the_servers_user_gets_the_file(folder: Path) -> None:
    path = secret_file(folder)
    os.chown(path, 0, 0)
    servers = [CLIENT, ADMIN | {"admin.secret.file": str(path)}]
    config = write_configuration(folder, servers=servers, user="nobody")
    [sentence] = find_exposed_files(config, load(config))
    name = shlex.quote(str(path))
    assert sentence.endswith(f": chgrp nogroup {name} && chmod g=r,o= {name}")
