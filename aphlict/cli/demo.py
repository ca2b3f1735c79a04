"""`demo`: a server in one process, with a page that subscribes and publishes."""

import asyncio
import json
import signal
import socket
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from importlib.resources import files

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from aphlict.cli.console import out
from aphlict.config.rules import BLOCKED_PORTS
from aphlict.config.settings import Limits, ServerSettings, Settings
from aphlict.errors import AphlictError, UsageError
from aphlict.node import Node, ports_of
from aphlict.process import ports
from aphlict.protocol.addresses import host_port
from aphlict.publisher import publish_async
from aphlict.server.auth import Credentials

EXAMPLES = {"demo": ("aphlict demo", "aphlict demo --listen 0.0.0.0 --port 8080 --client-port 22280")}
LOOPBACK = "127.0.0.1"
NO_PIDFILE = "/dev/null"
HANDSHAKE_SECONDS = 86400.0  # browsers keep spare connections open, which should not be logged here
MAX_MESSAGES = 100  # of one request of the page
MAX_PORT = 65535


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        default=LOOPBACK,
        help="address to listen on (0.0.0.0: all interfaces; default: 127.0.0.1)",
    )
    parser.add_argument("--port", type=port, default=0, metavar="N", help="port of the page (default: any)")
    parser.add_argument(
        "--client-port", type=port, default=0, metavar="N", help="port of the client server (default: any)"
    )


def port(text: str) -> int:
    """Accept a port number."""
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise ArgumentTypeError(f"{text} is invalid, expected a port from 0 to {MAX_PORT}")
    return int(text)


def run(arguments: Namespace) -> int:
    """Run the demo until Ctrl-C. Raises UsageError."""
    for option, number in {"--port": arguments.port, "--client-port": arguments.client_port}.items():
        if number in BLOCKED_PORTS:
            raise UsageError(f"{option} is {number}, expected another port: browsers block this one")
    if not arguments.listen:
        raise UsageError("--listen is empty, expected an address (0.0.0.0: all interfaces)")
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
    settings = Settings(
        servers=servers, pidfile=NO_PIDFILE, drain_time=0, limits=Limits(handshake=HANDSHAKE_SECONDS)
    )
    node = Node(settings, ports_of(settings, [client, admin]), [Credentials()] * 2)
    await node.start()
    server = HTTPServer(_application(node, _port(client), _port(admin)))
    server.add_sockets(page)
    out(f"The demo is running at {_describe_url(address, _port(page))} (Ctrl-C stops it)")
    await _wait_for_signal()
    server.stop()
    await server.close_all_connections()
    await node.drain()


def _describe_url(address: str, port: int) -> str:
    if address in ports.WILDCARDS:
        return f"http://{LOOPBACK}:{port}/, and at this port of all other addresses of this machine"
    return f"http://{host_port(address, port)}/"


def _port(sockets: list[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1])


async def _wait_for_signal() -> None:
    received = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, received.set)
    await received.wait()


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
    """Serves the page."""

    def initialize(self, page: str) -> None:
        """Part of Tornado's interface."""
        self.page = page

    def get(self) -> None:
        """Respond with the page."""
        self.set_header("Cache-Control", "no-store")
        self.finish(self.page)


class _Connections(RequestHandler):
    """Serves the number of connected clients."""

    def initialize(self, node: Node) -> None:
        """Part of Tornado's interface."""
        self.node = node

    def get(self) -> None:
        """Respond with the number of connections."""
        self.finish({"connections": self.node.hub.connections})


class _Publish(RequestHandler):
    """Publishes messages for the page, as a backend would."""

    def initialize(self, server: str) -> None:
        """Part of Tornado's interface."""
        self.server = server

    async def post(self) -> None:
        """Publish a list of texts to a channel."""
        try:
            request = json.loads(self.request.body)
            for text in request["texts"][:MAX_MESSAGES]:
                message = {"type": "notification", "text": str(text)}
                await publish_async(message, [str(request["channel"])], servers=[self.server])
        except (AphlictError, LookupError, TypeError, ValueError) as error:
            self.set_status(400)
            self.finish(str(error))
