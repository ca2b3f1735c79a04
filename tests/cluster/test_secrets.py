"""Nodes that require a secret or a client certificate from each other."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from aphlict.config.files import FileReader
from aphlict.config.settings import PeerSettings, ServerSettings, Settings
from tests.cluster.nodes import HOST
from tests.support.certificates import Authority, root
from tests.support.curl import curl
from tests.support.nodes import RunningNode, listening, receive, running_node, subscribed
from tests.support.waiting import eventually

SECRET, ANOTHER = "a-secret-of-many-letters", "another-secret-of-many-letters"


def peers(node: RunningNode) -> Sequence[dict[str, Any]]:
    """Return the status of a node's peers, without a request to its port."""
    reported: list[dict[str, Any]] = []
    node.node.status("default", lambda status: reported.extend(status["peers"]))
    return reported


def states(node: RunningNode) -> list[str]:
    return [peer["state"] for peer in peers(node)]


def listed(sockets: Sequence[Any], **keys: str) -> list[dict[str, Any]]:
    return [{"host": HOST, "port": admin.getsockname()[1], **keys} for _, admin in sockets]


async def check_delivery(one: RunningNode, other: RunningNode, *options: str, scheme: str = "http") -> None:
    """A message that is posted to one node arrives at the other's browser."""
    browser = await subscribed(other.url(), "a")
    answer = await curl(
        f"{scheme}://{HOST}:{one.admin_port}/", "-d", '{"subscribers": ["a"], "n": 1}', *options
    )
    assert answer.status == 200
    assert (await receive(browser, 1))[0]["n"] == 1


async def test_nodes_send_each_other_their_own_secret() -> None:
    sockets = [(listening(), listening()) for _ in range(2)]
    keys: dict[str, Any] = {"admin": {"admin.secret": SECRET}, "cluster": listed(sockets)}
    async with (
        running_node(sockets=sockets[0], **keys) as one,
        running_node(sockets=sockets[1], **keys) as other,
    ):
        await eventually(lambda: sorted(states(one)) == sorted(states(other)) == ["self", "up"])
        await check_delivery(one, other, "-H", f"Authorization: Bearer {SECRET}")


async def test_a_peer_can_have_a_secret_of_its_own() -> None:
    async with (
        running_node(admin={"admin.secret": ANOTHER}) as other,
        running_node(
            admin={"admin.secret": SECRET},
            cluster=[{"host": HOST, "port": other.admin_port, "secret": ANOTHER}],
        ) as one,
    ):
        await eventually(lambda: states(one) == ["up"])
        await check_delivery(one, other, "-H", f"Authorization: Bearer {SECRET}")


async def test_messages_are_queued_while_a_secret_is_rejected() -> None:
    async with running_node(admin={"admin.secret": SECRET}) as other:
        cluster = [{"host": HOST, "port": other.admin_port, "secret": ANOTHER}]
        async with running_node(cluster=cluster) as one:
            await eventually(lambda: states(one) == ["down"])
            [peer] = peers(one)
            assert peer["last_error_code"] == "peer_http_error"
            assert "401" in peer["last_error"]
            browser = await subscribed(other.url(), "a")
            await one.publish({"subscribers": ["a"], "n": 1})
            settings = one.node.settings
            right = tuple(structs.replace(each, secret=SECRET) for each in settings.cluster)
            one.node.prepare_reload(structs.replace(settings, cluster=right))()
            assert (await receive(browser, 1))[0]["n"] == 1
            await eventually(lambda: states(one) == ["up"])


def secured(authority: Authority, folder: Path, *, client: bool = True) -> dict[str, Any]:
    """The keys of an admin server that asks for certificates of its own authority."""
    issued = authority.issue(client=client)
    files = issued.write(folder)
    return {**{key: value for key, value in files.settings().items() if value}, "ssl.ca": files.ca}


async def test_nodes_use_the_certificate_of_their_admin_server(tmp_path: Path) -> None:
    authority = root()
    sockets = [(listening(), listening()) for _ in range(2)]
    ca = authority.write(tmp_path, "authority").ca
    cluster = listed(sockets, protocol="https", **{"ssl.ca": ca})
    async with (
        running_node(sockets=sockets[0], admin=secured(authority, tmp_path / "1"), cluster=cluster) as one,
        running_node(sockets=sockets[1], admin=secured(authority, tmp_path / "2"), cluster=cluster) as other,
    ):
        await eventually(lambda: sorted(states(one)) == sorted(states(other)) == ["self", "up"])
        shown = [
            "--cacert",
            ca,
            "--cert",
            str(tmp_path / "1/server.crt"),
            "--key",
            str(tmp_path / "1/server.key"),
        ]
        await check_delivery(one, other, *shown, scheme="https")


@pytest.mark.parametrize("shown", ["nothing", "of a stranger", "of a server alone"])
async def test_an_invalid_client_certificate_is_rejected(
    shown: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = root()
    cluster: dict[str, Any] = {"protocol": "https", "ssl.ca": authority.write(tmp_path, "authority").ca}
    if shown != "nothing":
        issuer = root("Someone Else") if shown == "of a stranger" else authority
        files = issuer.issue(client=shown == "of a stranger").write(tmp_path, "shown")
        cluster |= {"ssl.cert": files.cert, "ssl.key": files.key}
    async with running_node(admin=secured(authority, tmp_path)) as other:
        cluster |= {"host": HOST, "port": other.admin_port}
        async with running_node(cluster=[cluster]) as one:
            await eventually(lambda: "see ssl.cert of that peer" in str(peers(one)[0]["last_error"]))
            await one.publish({"subscribers": ["a"]})
            assert other.node.hub.counters.messages_in == 0
        assert other.node.hub.limit_counters.counts["ssl.ca"] >= 1
    assert re.search(
        r"ssl\.ca refused 127\.0\.0\.1 \((no client certificate|unsuitable|unable to get)", caplog.text
    )
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


def settings_of(*admins: dict[str, Any], peer: dict[str, Any]) -> PeerSettings:
    servers = tuple(ServerSettings(type="admin", port=1, **each) for each in admins)
    return Settings(servers=servers, cluster=(PeerSettings(host="a", port=2, **peer),), pidfile="/p").peers[0]


FILES = {"ssl_key": "/k", "ssl_cert": "/c"}


@pytest.mark.parametrize(
    ("admins", "peer", "shown"),
    [
        ([{}], {}, (None, None)),
        ([{}, {"admin_secret": f"{SECRET}\n{ANOTHER}"}], {}, (SECRET, None)),
        ([{"admin_secret": SECRET}], {"secret": ANOTHER}, (ANOTHER, None)),
        ([{**FILES}], {"protocol": "https"}, (None, None)),
        ([{**FILES, "ssl_ca": "/a"}], {"protocol": "https"}, (None, "/c")),
        ([{**FILES, "ssl_ca": "/a"}], {"protocol": "http"}, (None, None)),
        (
            [{**FILES, "ssl_ca": "/a"}],
            {"protocol": "https", "ssl_cert": "/x", "ssl_key": "/y"},
            (None, "/x"),
        ),
    ],
)
def test_which_credentials_a_peer_receives(
    admins: list[dict[str, Any]], peer: dict[str, Any], shown: tuple[str | None, str | None]
) -> None:
    found = settings_of(*admins, peer=peer)
    assert (found.secret, found.ssl_cert) == shown


async def test_removing_the_authority_of_a_peer_closes_the_connection(tmp_path: Path) -> None:
    authority, another = root("One"), root("Another")
    files = authority.issue().write(tmp_path)
    keys = {key: value for key, value in files.settings().items() if value}
    trusted = tmp_path / "trusted.ca"
    trusted.write_bytes(authority.own + another.own)
    async with running_node(admin=keys) as other:
        cluster = [{"host": HOST, "port": other.admin_port, "protocol": "https", "ssl.ca": str(trusted)}]
        async with running_node(cluster=cluster) as one:
            await eventually(lambda: states(one) == ["up"])
            contents = [authority.own, another.own]
            for content, state in zip(contents, ["up", "down"], strict=True):
                read = FileReader({str(trusted): content}).recall
                one.node.prepare_reload(one.node.settings, read)()
                browser = await subscribed(other.url(), "a")
                await one.publish({"subscribers": ["a"], "n": state})
                if state == "up":
                    assert (await receive(browser, 1))[0]["n"] == state
                await eventually(lambda state=state: states(one) == [state])  # type: ignore[misc]
                await browser.close()
