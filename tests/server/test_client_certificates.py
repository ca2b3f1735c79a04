"""A reload that removes an authority from `ssl.ca` closes the connections that depend on it."""

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.support.certificates import Authority, Files, put, root
from tests.support.nodes import RunningNode, running_node
from tests.support.waiting import eventually_async

REQUEST = b'POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 19\r\n\r\n{"subscribers": []}'


class Publisher:
    """A publisher with a persistent connection, with a certificate or without one."""

    def __init__(self, port: int, ca: str, shown: Files | None) -> None:
        self._port = port
        self._context = ssl.create_default_context(cafile=ca)
        if shown is not None:
            self._context.load_cert_chain(shown.cert, shown.key)

    async def connect(self) -> "Publisher":
        """Connect and publish once."""
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._context, server_hostname="localhost"
        )
        assert await self.is_served()
        return self

    async def is_served(self) -> bool:
        """Return whether a message is accepted over this connection."""
        self._writer.write(REQUEST)
        try:
            head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)
            size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            return False
        return head.startswith(b"HTTP/1.1 200 ")

    def close(self) -> None:
        """Close it."""
        self._writer.transport.abort()


def reload(node: RunningNode, **changes: Any) -> None:
    """Reload with other keys of the admin port."""
    settings = node.node.settings
    client, admin = settings.servers
    servers = (client, structs.replace(admin, **changes))
    node.node.prepare_reload(structs.replace(settings, servers=servers))()


@pytest.fixture
def authorities() -> tuple[Authority, Authority]:
    """Return an authority that stays and one that is removed."""
    return root("Stays"), root("Goes")


async def test_removing_an_authority_closes_its_connections(
    tmp_path: Path, authorities: tuple[Authority, Authority]
) -> None:
    stays, goes = authorities
    own = stays.issue().write(tmp_path)
    both = put(tmp_path / "both.ca", stays.own + goes.own)
    shown = [each.issue(client=True).write(tmp_path, str(n)) for n, each in enumerate(authorities)]
    keys = {key: value for key, value in own.settings().items() if value}
    async with running_node(admin={**keys, "ssl.ca": both}) as node:
        staying, going = [await Publisher(node.admin_port, own.ca, each).connect() for each in shown]
        reload(node)
        assert await staying.is_served()
        assert await going.is_served()
        reload(node, ssl_ca=own.ca)
        assert not await going.is_served()
        assert await staying.is_served()
        assert node.node.hub.limit_counters.counts["ssl.ca"] == 1
        staying.close()
        going.close()


async def test_requiring_certificates_closes_connections_without_one(
    tmp_path: Path, authorities: tuple[Authority, Authority]
) -> None:
    stays, _ = authorities
    own = stays.issue(client=True).write(tmp_path)
    keys = {key: value for key, value in own.settings().items() if value}
    async with running_node(admin=keys) as node:
        publisher = await Publisher(node.admin_port, own.ca, None).connect()
        reload(node, ssl_ca=own.ca)
        assert not await publisher.is_served()
        publisher.close()
        (await Publisher(node.admin_port, own.ca, own).connect()).close()


async def test_a_handshake_under_the_old_authorities_is_not_completed(
    tmp_path: Path, authorities: tuple[Authority, Authority]
) -> None:
    stays, goes = authorities
    own = stays.issue().write(tmp_path)
    both = put(tmp_path / "both.ca", stays.own + goes.own)
    shown = goes.issue(client=True).write(tmp_path, "shown")
    keys = {key: value for key, value in own.settings().items() if value}
    context = ssl.create_default_context(cafile=own.ca)
    context.load_cert_chain(shown.cert, shown.key)
    async with running_node(admin={**keys, "ssl.ca": both}) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.admin_port)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        writer.write(outgoing.read())
        incoming.write(await asyncio.wait_for(reader.read(65536), 10))
        reload(node, ssl_ca=own.ca)

        async def is_over() -> bool:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            writer.write(outgoing.read())
            return not await asyncio.wait_for(reader.read(65536), 10)

        await eventually_async(is_over)
        writer.transport.abort()
