"""A minimal publish/subscribe server with the `websockets` package, for the workloads.

python websockets_server.py CLIENT_PORT ADMIN_PORT
"""

import asyncio
import json
import sys
from collections import defaultdict

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from websockets.asyncio.server import ServerConnection, broadcast, serve

CHANNELS: dict[str, set[ServerConnection]] = defaultdict(set)


async def on_client(client: ServerConnection) -> None:
    """Serve one client."""
    names: list[str] = []
    try:
        async for text in client:
            command = json.loads(text)
            if command["command"] == "subscribe":
                names += command["data"]
                for name in command["data"]:
                    CHANNELS[name].add(client)
            if "id" in command:
                await client.send(json.dumps({"type": "ack", "id": command["id"]}))
    finally:
        for name in names:
            CHANNELS[name].discard(client)


def on_publish(request: HTTPServerRequest) -> None:
    """Publish one message."""
    text = request.body.decode()
    for name in json.loads(text)["subscribers"]:
        broadcast(CHANNELS[name], text)
    assert request.connection is not None
    head = HTTPHeaders({"Content-Length": "2", "Content-Type": "application/json"})
    request.connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), head, b"{}")
    request.connection.finish()


async def main(client_port: int, admin_port: int) -> None:
    """Serve until terminated."""
    HTTPServer(on_publish).listen(admin_port, "127.0.0.1")
    async with serve(on_client, "127.0.0.1", client_port, compression=None, ping_interval=None):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
