"""The example programs publish a message."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.proxies.programs import require
from tests.support.nodes import RunningNode, receive, running_node, subscribed

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SECRET = "a-secret-of-many-letters"


async def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run an example without blocking the event loop."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "APHLICT_SECRET": SECRET}
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, env=environment
    )


async def check(node: RunningNode, *command: str | Path) -> None:
    client = await subscribed(node.url(), "greetings")
    done = await run(*command, "greetings", "hello", f"http://127.0.0.1:{node.admin_port}/")
    assert done.returncode == 0, done.stderr
    message = (await receive(client, 1))[0]
    assert (message["text"], message["subscribers"]) == ("hello", ["greetings"])
    assert message["uniqueID"] in done.stdout


async def test_publishing_from_python() -> None:
    async with running_node() as node:
        await check(node, sys.executable, EXAMPLES / "publish.py")
    async with running_node(admin={"admin.secret": SECRET}) as node:
        await check(node, sys.executable, EXAMPLES / "publish.py")


async def test_publishing_from_php() -> None:
    php = require("php", "php-cli php-curl")
    async with running_node() as node:
        await check(node, php, EXAMPLES / "publish.php")
    async with running_node(admin={"admin.secret": SECRET}) as node:
        await check(node, php, EXAMPLES / "publish.php")
        done = await run(php, EXAMPLES / "publish.php", "greetings", "hello", "http://127.0.0.1:1/")
        assert done.returncode == 1
        assert "publishing failed: " in done.stderr
