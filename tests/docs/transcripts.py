"""Runs the transcripts of docs/protocol.md against a real server."""

import asyncio
import re
from contextlib import AsyncExitStack

from websockets.asyncio.client import ClientConnection, connect

from tests.support.nodes import RunningNode

TIMEOUT = 10  # seconds
MARKS = ("$ ", "> ", "< ", "# ")


class Transcript:
    """Runs the commands and sends the frames of a transcript, and records the results in the same form."""

    def __init__(self, node: RunningNode, stack: AsyncExitStack) -> None:
        self._node = node
        self._stack = stack
        self._client: ClientConnection | None = None

    async def run(self, transcript: str) -> str:
        """Run a transcript, and return the resulting one."""
        lines = [line for line in transcript.splitlines() if line.startswith(MARKS)]
        return "\n".join([await self._turn(line[0], line[2:]) for line in lines])

    async def _turn(self, mark: str, text: str) -> str:
        if mark == "$":
            return f"$ {text}\n{(await self._run(text)).rstrip()}"
        if mark == "#":
            await self._connect(text)
        elif mark == ">":
            await self._connected().send(text)
        else:
            text = str(await asyncio.wait_for(self._connected().recv(), TIMEOUT))
        return f"{mark} {text}"

    async def _run(self, command: str) -> str:
        process = await asyncio.create_subprocess_shell(
            self._adapt(command.replace("curl", "curl -sS")), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT)
        return output.decode().replace("\r\n", "\n")

    async def _connect(self, text: str) -> None:
        url = re.search(r"ws://\S+", text)
        assert url, f"a line with # needs the URL that a client connects to: {text}"
        self._client = await self._stack.enter_async_context(connect(self._adapt(url[0])))

    def _connected(self) -> ClientConnection:
        assert self._client is not None, "a client has to connect before it sends"
        return self._client

    def _adapt(self, text: str) -> str:
        return text.replace("22280", str(self._node.client_port)).replace("22281", str(self._node.admin_port))
