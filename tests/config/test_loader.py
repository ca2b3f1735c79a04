"""What a configuration file becomes, and the sentence for each thing that can be wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from aphlict.config.loader import find, load
from aphlict.config.settings import Limits, PeerSettings, ServerSettings, Settings
from aphlict.errors import ConfigError
from tests.support import certificates
from tests.support.configuration import ADMIN, CLIENT, FIELDS, KEYS, configuration, write_configuration

PHORGE = """{
  "servers": [
    {"type": "client", "port": 22280, "listen": "0.0.0.0", "ssl.key": null, "ssl.cert": null, "ssl.chain": null},
    {"type": "admin", "port": 22281, "listen": "127.0.0.1", "ssl.key": null, "ssl.cert": null, "ssl.chain": null}
  ],
  "logs": [{"path": "/var/log/aphlict.log"}],
  "pidfile": "/var/tmp/aphlict/pid/aphlict.pid",
  "cluster": [{"host": "push2.example.com", "port": 22281, "protocol": "https"}],
  "memory.hint": 512
}
"""


def refusal(path: Path) -> str:
    """Read a file that must be refused: the sentence without the file's name, which must begin it."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    assert caught.value.exit_status == 77
    return sentence.removeprefix(f"{path}: ")


def refusal_of(folder: Path, **changes: Any) -> str:
    return refusal(write_configuration(folder, **changes))


def refusal_of_server(folder: Path, **changes: Any) -> str:
    return refusal_of(folder, servers=[CLIENT | changes, ADMIN])


class TestFind:
    def test_the_explicit_file_comes_first(self, tmp_path: Path) -> None:
        (tmp_path / "conf/aphlict").mkdir(parents=True)
        (tmp_path / "conf/aphlict/aphlict.custom.json").touch()
        assert find("/etc/aphlict/aphlict.json", tmp_path) == Path("/etc/aphlict/aphlict.json")

    def test_an_explicit_relative_file_is_taken_from_the_current_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert find("mine.json", Path("/root")) == tmp_path / "mine.json"

    def test_the_custom_file_comes_before_the_default(self, tmp_path: Path) -> None:
        folder = tmp_path / "conf/aphlict"
        folder.mkdir(parents=True)
        (folder / "aphlict.default.json").touch()
        assert find(None, tmp_path) == folder / "aphlict.default.json"
        (folder / "aphlict.custom.json").touch()
        assert find(None, tmp_path) == folder / "aphlict.custom.json"

    def test_nothing_there_is_said_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(
            ConfigError, match=r"aphlict\.default\.json does not exist, expected it or a file"
        ):
            find(None, tmp_path)


class TestRead:
    def test_an_existing_installation(self, tmp_path: Path) -> None:
        settings = load(write_configuration(tmp_path, PHORGE))
        assert settings == Settings(
            servers=(
                ServerSettings(type="client", port=22280, listen="0.0.0.0"),
                ServerSettings(type="admin", port=22281, listen="127.0.0.1"),
            ),
            logs=settings.logs,
            pidfile="/var/tmp/aphlict/pid/aphlict.pid",
            cluster=(PeerSettings(host="push2.example.com", port=22281, protocol="https"),),
            memory_hint=512,
            limits=Limits(subscriptions_total=64 * 1024 * 1024),
        )
        assert [log.path for log in settings.logs] == ["/var/log/aphlict.log"]

    def test_default_addresses(self, tmp_path: Path) -> None:
        client, admin = load(write_configuration(tmp_path)).servers
        assert (client.address, admin.address) == ("0.0.0.0", "127.0.0.1")

    def test_null_is_not_given_wherever_a_key_is_optional(self, tmp_path: Path) -> None:
        nulls = {each.encode_name: None for each in FIELDS.values() if not each.required}
        plain = load(write_configuration(tmp_path))
        assert load(write_configuration(tmp_path, {**configuration(), **nulls})) == plain

    def test_what_existing_configurations_have_for_not_given(self, tmp_path: Path) -> None:
        """As Phorge's checker and the Node.js server read it."""
        empty = {"listen": "", "ssl.key": "", "ssl.cert": "", "ssl.chain": ""}
        servers = [CLIENT | empty, ADMIN | empty]
        plain = load(write_configuration(tmp_path))
        assert load(write_configuration(tmp_path, servers=servers, memory_hint=0)) == plain

    def test_an_empty_key_beside_a_certificate(self, tmp_path: Path) -> None:
        sentence = refusal_of_server(tmp_path, **{"ssl.key": "", "ssl.cert": "/x/cert"})
        assert sentence.startswith('servers[0].ssl.cert is "/x/cert", expected servers[0].ssl.key beside it')

    def test_null_protocol_of_a_peer(self, tmp_path: Path) -> None:
        peer = {"host": "a", "port": 1, "protocol": None}
        assert load(write_configuration(tmp_path, cluster=[peer])).cluster[0].protocol == "http"

    def test_relative_paths_are_taken_from_the_folder_of_the_file(self, tmp_path: Path) -> None:
        folder = tmp_path / "conf/aphlict"
        files = certificates.self_signed().write(tmp_path / "tls")
        server = {**CLIENT, "ssl.key": "../../tls/server.key", "ssl.cert": "../../tls/server.crt"}
        folder.mkdir(parents=True)
        peer = {"host": "a", "port": 1, "protocol": "https", "ssl.ca": "../../tls/server.ca"}
        path = write_configuration(
            folder,
            servers=[server, ADMIN],
            logs=[{"path": "../../logs/aphlict.log"}],
            cluster=[peer],
            pidfile="run/aphlict.pid",
        )
        settings = load(path)
        assert settings.servers[0].ssl_key == files.key
        assert settings.servers[0].ssl_cert == files.cert
        assert settings.cluster[0].ssl_ca == files.ca
        assert settings.logs[0].path == str(tmp_path / "logs/aphlict.log")
        assert settings.pidfile == str(folder / "run/aphlict.pid")

    def test_a_relative_path_follows_the_real_folder(self, tmp_path: Path) -> None:
        (tmp_path / "etc/deep").mkdir(parents=True)
        (tmp_path / "link").symlink_to(tmp_path / "etc/deep")
        write_configuration(tmp_path / "etc/deep", pidfile="../a.pid")
        assert load(tmp_path / "link/aphlict.json").pidfile == str(tmp_path / "etc/a.pid")

    def test_the_file_may_be_named_from_the_current_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_configuration(tmp_path)
        monkeypatch.chdir(tmp_path)
        assert load(Path("aphlict.json")).pidfile == str(tmp_path / "aphlict.pid")

    def test_a_byte_order_mark_is_no_mistake(self, tmp_path: Path) -> None:
        path = write_configuration(tmp_path)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert load(path).pidfile

    def test_a_whole_number_is_a_number(self, tmp_path: Path) -> None:
        assert load(write_configuration(tmp_path, drain_time=5)).drain_time == 5.0

    def test_files_can_be_left_alone(self, tmp_path: Path) -> None:
        server = {**CLIENT, "ssl.key": "/nowhere/key", "ssl.cert": "/nowhere/cert"}
        assert load(write_configuration(tmp_path, servers=[server, ADMIN]), files=False).servers[0].tls


class TestNotJson:
    def test_line_and_column(self, tmp_path: Path) -> None:
        path = write_configuration(tmp_path, '{\n  "servers": [],\n  "pidfile" "x"\n}')
        assert refusal(path) == "not JSON at line 3, column 13: expecting ':' delimiter"

    def test_a_file_that_ends_early(self, tmp_path: Path) -> None:
        path = write_configuration(tmp_path, '{"servers": [')
        assert refusal(path) == "not JSON at line 1, column 14: expecting value, found the end of the file"

    def test_an_empty_file(self, tmp_path: Path) -> None:
        path = write_configuration(tmp_path, "")
        assert refusal(path) == "not JSON at line 1, column 1: expecting value, found the end of the file"

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("[]", "a list"),
            ("null", "null"),
            ('"x"', "a text"),
            ("true", "true or false"),
            ("NaN", "a number"),
        ],
    )
    def test_the_top_is_not_an_object(self, tmp_path: Path, text: str, found: str) -> None:
        path = write_configuration(tmp_path, text)
        assert refusal(path) == f"the file contains {found}, expected an object"

    def test_not_text(self, tmp_path: Path) -> None:
        path = tmp_path / "aphlict.json"
        path.write_bytes(b'{"pidfile": "\xff"}')
        assert refusal(path) == "byte 13 is 0xff, expected text in UTF-8"

    def test_no_file(self, tmp_path: Path) -> None:
        sentence = refusal(tmp_path / "none.json")
        assert sentence == "cannot be read (No such file or directory), expected a configuration file"

    def test_a_folder(self, tmp_path: Path) -> None:
        assert refusal(tmp_path) == "cannot be read (Is a directory), expected a configuration file"

    def test_a_name_that_no_file_has(self) -> None:
        assert refusal(Path("a\0b")) == "cannot be read (embedded null byte), expected a configuration file"

    def test_nested_beyond_reason(self, tmp_path: Path) -> None:
        path = write_configuration(tmp_path, '{"pidfile": ' + "[" * 200_000)
        assert refusal(path) == "the file is nested too deeply, expected an object"

    def test_a_number_beyond_reason(self, tmp_path: Path) -> None:
        path = write_configuration(tmp_path, '{"pidfile": ' + "1" * 5000 + "}")
        assert refusal(path).startswith("the file has a number that is too long, expected a shorter one (")


class TestKeys:
    def test_a_key_twice(self, tmp_path: Path) -> None:
        server = '{"type": "client", "port": 1, "port": 2}'
        path = write_configuration(tmp_path, f'{{"servers": [{server}], "pidfile": "x"}}')
        assert refusal(path) == "servers[0].port is given twice (1 and 2), expected once"

    def test_a_key_twice_at_the_top(self, tmp_path: Path) -> None:
        path = write_configuration(tmp_path, '{"pidfile": "x", "pidfile": "x"}')
        assert refusal(path) == 'pidfile is given twice ("x" and "x"), expected once'

    def test_an_unknown_key_suggests_the_nearest(self, tmp_path: Path) -> None:
        sentence = refusal_of(tmp_path, pid_file="x")
        assert sentence == "pid_file is an unknown key, expected pidfile"

    @pytest.mark.parametrize("name", ["ssl_cert", "SSL.cert", "sslcert"])
    def test_an_unknown_key_of_a_server(self, tmp_path: Path, name: str) -> None:
        sentence = refusal_of_server(tmp_path, **{name: "x"})
        assert sentence == f"servers[0].{name} is an unknown key, expected servers[0].ssl.cert"

    def test_an_unknown_key_like_no_other(self, tmp_path: Path) -> None:
        sentence = refusal_of(tmp_path, logs=[{"path": "x", "zzz": None}])
        assert sentence == "logs[0].zzz is an unknown key, expected one of path, format, level"

    def test_a_missing_pidfile(self, tmp_path: Path) -> None:
        path = write_configuration(tmp_path, {"servers": [CLIENT, ADMIN]})
        assert refusal(path) == "pidfile is missing, expected a path"

    def test_missing_servers(self, tmp_path: Path) -> None:
        path = write_configuration(tmp_path, {"pidfile": "x"})
        assert refusal(path) == "servers is missing, expected a list of objects"

    def test_a_missing_port(self, tmp_path: Path) -> None:
        sentence = refusal_of(tmp_path, servers=[CLIENT, {"type": "admin"}])
        assert sentence == "servers[1].port is missing, expected a whole number from 1 to 65535"

    def test_a_required_key_cannot_be_null(self, tmp_path: Path) -> None:
        assert refusal_of(tmp_path, pidfile=None) == "pidfile is null, expected a path"


class TestValues:
    @pytest.mark.parametrize("value", [0, -1, 65536, 10**30, True, "22280", 22280.5, 1.0, None])
    def test_a_port(self, tmp_path: Path, value: object) -> None:
        sentence = refusal_of_server(tmp_path, port=value)
        shown = json.dumps(value)
        assert sentence == f"servers[0].port is {shown}, expected a whole number from 1 to 65535"

    def test_an_unknown_server_type(self, tmp_path: Path) -> None:
        sentence = refusal_of_server(tmp_path, type="public")
        assert sentence == 'servers[0].type is "public", expected "admin" or "client"'

    @pytest.mark.parametrize("value", [{}, "x", 1, True])
    def test_servers_that_are_no_list(self, tmp_path: Path, value: object) -> None:
        assert refusal_of(tmp_path, servers=value).endswith(", expected a list of objects")

    def test_a_server_that_is_no_object(self, tmp_path: Path) -> None:
        assert refusal_of(tmp_path, servers=[CLIENT, ADMIN, None]) == "servers[2] is null, expected an object"

    def test_an_address_that_is_no_text(self, tmp_path: Path) -> None:
        assert refusal_of_server(tmp_path, listen=1) == "servers[0].listen is 1, expected an address or null"

    @pytest.mark.parametrize("key", ["ssl.ca", "admin.secret.file", "auth.audience"])
    def test_an_empty_text_that_existing_configurations_do_not_have(self, tmp_path: Path, key: str) -> None:
        assert refusal_of_server(tmp_path, **{key: ""}).startswith(f'servers[0].{key} is "", expected ')

    def test_an_empty_certificate_of_a_peer(self, tmp_path: Path) -> None:
        peer = {"host": "a", "port": 1, "protocol": "https", "ssl.key": "", "ssl.cert": ""}
        sentence = refusal_of(tmp_path, cluster=[peer])
        assert sentence == 'cluster[0].ssl.key is "", expected a path or null'

    def test_an_empty_pidfile(self, tmp_path: Path) -> None:
        assert refusal_of(tmp_path, pidfile="") == 'pidfile is "", expected a path'

    def test_logs_that_are_texts(self, tmp_path: Path) -> None:
        assert refusal_of(tmp_path, logs=["x.log"]) == 'logs[0] is "x.log", expected an object'

    def test_a_protocol(self, tmp_path: Path) -> None:
        sentence = refusal_of(tmp_path, cluster=[{"host": "a", "port": 1, "protocol": "ftp"}])
        assert sentence == 'cluster[0].protocol is "ftp", expected "http" or "https"'

    @pytest.mark.parametrize("value", [-1, 0.0, 1.5, "", "512M", True, False])
    def test_a_memory_hint(self, tmp_path: Path, value: object) -> None:
        sentence = refusal_of(tmp_path, memory_hint=value)
        expected = "a whole number of MiB, at least 1, or null"
        assert sentence == f"memory.hint is {json.dumps(value)}, expected {expected}"

    @pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1", "86401", "true", '"2"'])
    def test_seconds(self, tmp_path: Path, text: str) -> None:
        path = write_configuration(
            tmp_path, json.dumps(configuration(drain_time="here")).replace('"here"', text)
        )
        shown = "Infinity" if text == "1e999" else text
        assert refusal(path) == f"drain.time is {shown}, expected a number of seconds from 0 to 86400"

    @pytest.mark.parametrize("key", ["ping_interval", "ping_timeout", "handshake"])
    def test_seconds_that_cannot_be_none(self, tmp_path: Path, key: str) -> None:
        expected = "a number of seconds above 0, at most 86400"
        assert refusal_of(tmp_path, **{key: 0}) == f"{KEYS[key]} is 0, expected {expected}"

    @pytest.mark.parametrize("value", [0, -5, 1e3, False])
    def test_a_limit_in_bytes(self, tmp_path: Path, value: object) -> None:
        sentence = refusal_of(tmp_path, body=value)
        assert sentence == f"limits.body is {json.dumps(value)}, expected a whole number of bytes, at least 1"

    @pytest.mark.parametrize("value", [True, {"a": 1}, [[1]]], ids=json.dumps)
    @pytest.mark.parametrize("key", list(KEYS.values()))
    def test_a_wrong_type_of_any_key(self, tmp_path: Path, key: str, value: object) -> None:
        sentence = refusal(write_configuration(tmp_path, configuration() | {key: value}))
        assert sentence.startswith((f"{key} is ", f"{key}[0] is "))
        assert ", expected " in sentence

    @pytest.mark.parametrize("value", [7.5, {"a": 1}, [[1]]], ids=json.dumps)
    @pytest.mark.parametrize("key", [each.encode_name for each in structs.fields(ServerSettings)])
    def test_a_wrong_type_of_any_key_of_a_server(self, tmp_path: Path, key: str, value: object) -> None:
        sentence = refusal_of_server(tmp_path, **{key: value})
        assert sentence.startswith((f"servers[0].{key} is ", f"servers[0].{key}[0] is "))
        assert ", expected " in sentence

    @pytest.mark.parametrize("value", ["a\0b", "\ud800"])
    def test_text_that_no_file_can_be_called(self, tmp_path: Path, value: str) -> None:
        assert refusal_of(tmp_path, pidfile=value) == (
            f"pidfile is {ascii(value).replace(chr(39), chr(34))}, expected valid Unicode text without NUL"
        ).replace("\\x00", "\\u0000")

    def test_a_long_value_is_shortened(self, tmp_path: Path) -> None:
        assert len(refusal_of_server(tmp_path, type="x" * 1000)) < 200


class TestRules:
    @pytest.mark.parametrize(("kind", "other"), [("admin", CLIENT), ("client", ADMIN)])
    def test_each_type_of_server_is_needed(self, tmp_path: Path, kind: str, other: dict[str, Any]) -> None:
        sentence = refusal_of(tmp_path, servers=[other])
        assert sentence.startswith(f'a server of type "{kind}" in servers is missing, expected at least one')

    def test_no_servers_at_all(self, tmp_path: Path) -> None:
        assert "is missing, expected at least one" in refusal_of(tmp_path, servers=[])

    @pytest.mark.parametrize(
        ("one", "other", "clash"),
        [
            ("127.0.0.1", "127.0.0.1", "both listen on 127.0.0.1"),
            ("0.0.0.0", "127.0.0.1", "0.0.0.0 includes 127.0.0.1"),
            ("127.0.0.1", "0.0.0.0", "0.0.0.0 includes 127.0.0.1"),
            (None, None, "0.0.0.0 includes 127.0.0.1"),
            ("::", "::1", ":: includes ::1"),
            ("::1", "0:0:0:0:0:0:0:1", "::1 is 0:0:0:0:0:0:0:1"),
            ("localhost", "127.0.0.1", "localhost is 127.0.0.1"),
            ("0.0.0.0", "push.example.com", "0.0.0.0 includes push.example.com"),
            ("Push.example.com", "push.example.com.", "Push.example.com is push.example.com."),
        ],
    )
    def test_two_servers_on_one_port(
        self, tmp_path: Path, one: str | None, other: str | None, clash: str
    ) -> None:
        servers = [CLIENT | {"listen": one}, ADMIN | {"listen": other, "port": 22280}]
        sentence = refusal_of(tmp_path, servers=servers)
        expected = "another port than that of servers[0]"
        assert sentence == f"servers[1].port is 22280, expected {expected} ({clash})"

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("127.0.0.1", "127.0.0.2"),
            ("127.0.0.1", "::1"),
            ("0.0.0.0", "::"),
            ("::", "127.0.0.1"),
            ("a", "b"),
        ],
    )
    def test_one_port_of_two_addresses(self, tmp_path: Path, one: str, other: str) -> None:
        servers = [CLIENT | {"listen": one}, ADMIN | {"listen": other, "port": 22280}]
        assert load(write_configuration(tmp_path, servers=servers)).servers

    def test_a_key_without_a_certificate(self, tmp_path: Path) -> None:
        sentence = refusal_of_server(tmp_path, **{"ssl.key": "/x/key"})
        assert sentence == (
            'servers[0].ssl.key is "/x/key", expected servers[0].ssl.cert beside it (TLS needs both)'
        )

    def test_a_certificate_without_a_key(self, tmp_path: Path) -> None:
        sentence = refusal_of_server(tmp_path, **{"ssl.cert": "/x/cert", "ssl.key": None})
        assert sentence.startswith('servers[0].ssl.cert is "/x/cert", expected servers[0].ssl.key beside it')

    def test_a_chain_alone(self, tmp_path: Path) -> None:
        sentence = refusal_of_server(tmp_path, **{"ssl.chain": "/x/chain"})
        expected = "servers[0].ssl.key and servers[0].ssl.cert beside it"
        assert sentence.startswith(f'servers[0].ssl.chain is "/x/chain", expected {expected}')

    @pytest.mark.parametrize("missing", ["ssl.key", "ssl.cert", "ssl.chain"])
    def test_a_file_that_cannot_be_read(self, tmp_path: Path, missing: str) -> None:
        files = certificates.root().intermediate().issue().write(tmp_path).settings()
        gone = str(files[missing])
        Path(gone).unlink()
        assert refusal_of_server(tmp_path, **files) == (
            f'servers[0].{missing} is "{gone}", expected a file that can be read (No such file or directory)'
        )

    def test_a_peers_authority_that_cannot_be_read(self, tmp_path: Path) -> None:
        peer = {"host": "a", "port": 1, "protocol": "https", "ssl.ca": str(tmp_path)}
        sentence = refusal_of(tmp_path, cluster=[peer])
        assert sentence == (
            f'cluster[0].ssl.ca is "{tmp_path}", expected a file that can be read (Is a directory)'
        )

    def test_an_authority_for_plain_http(self, tmp_path: Path) -> None:
        sentence = refusal_of(tmp_path, cluster=[{"host": "a", "port": 1, "ssl.ca": "x"}])
        assert 'ssl.ca is "' in sentence
        assert sentence.endswith(
            'expected cluster[0].protocol "https" beside it (plain HTTP has no certificates)'
        )

    @pytest.mark.parametrize(
        ("network", "reason"),
        [
            ("localhost", "'localhost' does not appear to be an IPv4 or IPv6 network"),
            ("10.0.0.1/8", "10.0.0.1/8 has host bits set"),
            ("10.0.0.0/33", "'10.0.0.0/33' does not appear to be an IPv4 or IPv6 network"),
        ],
    )
    def test_a_proxy_that_is_no_network(self, tmp_path: Path, network: str, reason: str) -> None:
        assert refusal_of_server(tmp_path, **{"proxy.trusted": ["127.0.0.1", network]}) == (
            f'servers[0].proxy.trusted[1] is "{network}", expected a network such as 10.0.0.0/8 or fd00::/8'
            f" ({reason})"
        )

    @pytest.mark.parametrize(
        ("changes", "shown"),
        [
            ({"proxy.protocol": True}, "proxy.protocol is true"),
            ({"proxy.trusted": ["::1"]}, "proxy.trusted is a list"),
        ],
    )
    def test_a_proxy_in_front_of_an_admin_server(
        self, tmp_path: Path, changes: dict[str, Any], shown: str
    ) -> None:
        assert refusal_of(tmp_path, servers=[CLIENT, ADMIN | changes]) == (
            f'servers[1].{shown}, expected it only on a server of type "client" (clients connect there)'
        )

    def test_a_peer_twice(self, tmp_path: Path) -> None:
        one, other = {"host": "push2", "port": 1}, {"host": "PUSH2", "port": 1, "protocol": "https"}
        sentence = refusal_of(tmp_path, cluster=[one, {"host": "push2", "port": 2}, other])
        assert sentence == (
            'cluster[2].host is "PUSH2", expected another host and port than those of cluster[0] '
            "(both are PUSH2:1)"
        )

    def test_silence_must_be_longer_than_the_time_to_the_ping(self, tmp_path: Path) -> None:
        assert refusal_of(tmp_path, ping_timeout=30) == (
            "ping.timeout is 30.0, expected more than ping.interval, 30 "
            "(a client needs time to answer a ping)"
        )
