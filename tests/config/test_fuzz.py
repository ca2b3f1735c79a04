"""Whatever a file holds: Settings or one sentence, nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from aphlict.config.loader import load
from aphlict.config.settings import LogSettings, PeerSettings, ServerSettings, Settings
from aphlict.errors import ConfigError
from tests.support.configuration import FIELDS

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**25, -(10**400)])
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["admin", "client", "http", "https", "0.0.0.0", "::", "a\0b", "\ud800"])
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)
)


def like(table: type[Any], **better: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with the keys of a table, most of them with values that could be right."""
    fields = FIELDS.values() if table is Settings else structs.fields(table)
    keys = {each.encode_name: better.get(each.name, ANYTHING) for each in fields}
    return st.fixed_dictionaries({}, optional=keys | {"stranger": ANYTHING}) | ANYTHING


PORTS = st.integers(1, 3) | ANYTHING
SERVERS = like(ServerSettings, port=PORTS, type=st.sampled_from(["admin", "client"]))
CONFIGURATIONS = like(
    Settings,
    servers=st.lists(SERVERS, max_size=4) | ANYTHING,
    logs=st.lists(like(LogSettings)) | ANYTHING,
    cluster=st.lists(like(PeerSettings, port=PORTS), max_size=3) | ANYTHING,
    pidfile=st.just("x.pid") | ANYTHING,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "aphlict.json"


def outcome(file: Path) -> Settings | str:
    try:
        return load(file)
    except ConfigError as error:
        return str(error)


def check(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    match outcome(file):
        case str(sentence):
            assert sentence.startswith(f"{file}: ")
            assert sentence.isprintable()
        case settings:
            assert Path(settings.pidfile).is_absolute()
            assert {server.type for server in settings.servers} == {"admin", "client"}


@given(value=CONFIGURATIONS)
def test_any_json(file: Path, value: object) -> None:
    check(file, json.dumps(value).encode())


@given(value=CONFIGURATIONS, at=st.integers(0, 500), junk=st.binary(max_size=4))
def test_damaged_json(file: Path, value: object, at: int, junk: bytes) -> None:
    content = json.dumps(value).encode()
    check(file, content[:at] + junk + content[at + 1 :])


@given(content=st.binary(max_size=40))
def test_any_bytes(file: Path, content: bytes) -> None:
    check(file, content)
