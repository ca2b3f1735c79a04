"""`demo`: a server of its own, with a page to try it."""

import asyncio
import json
import signal
import socket
from argparse import Namespace
from importlib.resources import files

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from aphlict.cli.console import say
from aphlict.config.rules import BLOCKED_PORTS
from aphlict.config.settings import Limits, ServerSettings, Settings
from aphlict.errors import AphlictError, UsageError
from aphlict.node import Node, ports_of
from aphlict.process import ports
from aphlict.protocol.addresses import host_port
from aphlict.publisher import publish_async
from aphlict.server.auth import Credentials

LOOPBACK = "127.0.0.1"
NO_PIDFILE = "/dev/null"  # only Ctrl-C ends a demo
PATIENCE = 86400.0  # seconds: browsers keep spare connections open, which is nothing to be told of here
MOST = 100  # messages that the page publishes at once


def run(arguments: Namespace) -> int:
    """Do it until Ctrl-C. Raises UsageError."""
    for option, port in {"--port": arguments.port, "--client-port": arguments.client_port}.items():
        if port in BLOCKED_PORTS:
            raise UsageError(f"{option} is {port}, expected another one: browsers refuse to connect there")
    if not arguments.listen:
        raise UsageError("--listen is empty, expected an address: 0.0.0.0 is for everybody")
    asyncio.run(_serve(arguments.listen, arguments.port, arguments.client_port))
    return 0


async def _serve(address: str, page_port: int, client_port: int) -> None:
    wanted = [
        ServerSettings(type="client", port=page_port, listen=address),
        ServerSettings(type="client", port=client_port, listen=address),
        ServerSettings(type="admin", port=0, listen=LOOPBACK),
    ]
    page, client, admin = ports.bind_all(wanted)[0]
    servers = (
        ServerSettings(type="client", port=_port(client), listen=address),
        ServerSettings(type="admin", port=_port(admin), listen=LOOPBACK),
    )
    settings = Settings(servers=servers, pidfile=NO_PIDFILE, drain_time=0, limits=Limits(handshake=PATIENCE))
    node = Node(settings, ports_of(settings, [client, admin]), [Credentials()] * 2)
    await node.start()
    server = HTTPServer(_application(node, _port(client), _port(admin)))
    server.add_sockets(page)
    say(f"The demo is at {_where(address, _port(page))} (Ctrl-C ends it)")
    await _told_to_stop()
    server.stop()
    await server.close_all_connections()
    await node.drain()


def _where(address: str, port: int) -> str:
    if address in ports.WILDCARDS:
        return f"http://{LOOPBACK}:{port}/, and at that port of every address that this machine has"
    return f"http://{host_port(address, port)}/"


def _port(sockets: list[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1])


async def _told_to_stop() -> None:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await told.wait()


def _application(node: Node, client_port: int, admin_port: int) -> Application:
    page = (files("aphlict") / "browser" / "demo.html").read_text().replace("CLIENT_PORT", str(client_port))
    return Application(
        [
            ("/", _Page, {"page": page}),
            ("/connections", _Connections, {"node": node}),
            ("/publish", _Publish, {"server": f"http://{LOOPBACK}:{admin_port}/"}),
        ],
        log_function=lambda _handler: None,
    )


class _Page(RequestHandler):
    """The page itself."""

    def initialize(self, page: str) -> None:
        """Part of Tornado's interface."""
        self.page = page

    def get(self) -> None:
        """Answer with it."""
        self.set_header("Cache-Control", "no-store")
        self.finish(self.page)


class _Connections(RequestHandler):
    """How many browsers are connected."""

    def initialize(self, node: Node) -> None:
        """Part of Tornado's interface."""
        self.node = node

    def get(self) -> None:
        """Answer with it."""
        self.finish({"connections": self.node.hub.connections})


class _Publish(RequestHandler):
    """Publishes what the page was told to, as a backend would."""

    def initialize(self, server: str) -> None:
        """Part of Tornado's interface."""
        self.server = server

    async def post(self) -> None:
        """Publish texts on a channel."""
        try:
            wanted = json.loads(self.request.body)
            for text in wanted["texts"][:MOST]:
                message = {"type": "notification", "text": str(text)}
                await publish_async(message, [str(wanted["channel"])], servers=[self.server])
        except (AphlictError, LookupError, TypeError, ValueError) as error:
            self.set_status(400)
            self.finish(str(error))
