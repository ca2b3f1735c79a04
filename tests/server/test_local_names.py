"""The names of this machine, from its host name and files."""

import socket
from pathlib import Path

import pytest

from aphlict.config.loader import load
from aphlict.server import access
from tests.support.configuration import write_configuration


def names(folder: Path, monkeypatch: pytest.MonkeyPatch, resolver: str, hosts: str = "") -> set[str]:
    """Return the names of `web1` with these files."""
    monkeypatch.setattr(socket, "gethostname", lambda: "web1")
    for name, text in (("RESOLVER", resolver), ("HOSTS", hosts)):
        (folder / name).write_text(text)
        monkeypatch.setattr(access, name, folder / name)
    return set(access.local_names(load(write_configuration(folder))))


@pytest.mark.parametrize(
    ("resolver", "domains"),
    [
        ("search a.example", ["a.example"]),
        ("search\ta.example\tb.example\n", ["a.example", "b.example"]),
        ("search \t a.example   b.example \t\n", ["a.example", "b.example"]),
        ("domain\ta.example\n", ["a.example"]),
        ("domain a.example b.example\n", ["a.example"]),
        ("search a.example b.example\nnameserver 127.0.0.1\nsearch c.example\n", ["c.example"]),
        ("search a.example\ndomain b.example\n", ["b.example"]),
        ("domain b.example\r\nsearch a.example\r\n", ["a.example"]),
        ("# search a.example\n;search a.example\n search a.example\nsearching a.example\n", []),
        ("search a.example\nsearch\n", []),
        ("", []),
    ],
)
def test_search_domains(
    resolver: str, domains: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """See resolv.conf(5): white space of any kind, and the last line wins."""
    assert names(tmp_path, monkeypatch, resolver) == {"web1", *(f"web1.{domain}" for domain in domains)}


def test_names_in_etc_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = "127.0.0.1\tlocalhost a.example # b.example\n#::1 c.example\n\n"
    assert names(tmp_path, monkeypatch, "", hosts) == {"web1", "localhost", "a.example"}
