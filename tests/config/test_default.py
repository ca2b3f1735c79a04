"""The configuration that is shipped: an unprivileged user's server, as it stands."""

from pathlib import Path

from aphlict.config.loader import find, load

ROOT = Path(__file__).resolve().parents[2]


def test_it_is_valid_and_stays_inside_the_project() -> None:
    path = ROOT / "conf/aphlict/aphlict.default.json"
    settings = load(path)
    listeners = {(server.type, server.address, server.port, server.tls) for server in settings.servers}
    assert listeners == {("client", "0.0.0.0", 22280, False), ("admin", "127.0.0.1", 22281, False)}
    assert [log.path for log in settings.logs] == [str(ROOT / "logs/aphlict.log")]
    assert settings.pidfile == str(ROOT / "logs/aphlict.pid")
    assert settings.user is None


def test_it_is_found_where_nothing_else_is_said() -> None:
    if not (ROOT / "conf/aphlict/aphlict.custom.json").exists():
        assert find(None, ROOT) == ROOT / "conf/aphlict/aphlict.default.json"
