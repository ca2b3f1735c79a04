"""docs/protocol.md matches the code: its transcripts are run against a node, its tables compared."""

import asyncio
import json
import re
from contextlib import AsyncExitStack

import pytest
from msgspec import structs

from aphlict import errors
from aphlict.config.settings import Limits
from aphlict.core.stats import LIMIT_NAMES
from aphlict.protocol import websocket
from tests.docs.pages import ROOT, Example, examples, same
from tests.docs.transcripts import Transcript
from tests.support.nodes import running_node
from tests.support.waiting import eventually

PAGE = ROOT / "docs/protocol.md"
TEXT = PAGE.read_text()
CLIENTS_OWN = 1000


@pytest.mark.parametrize("example", [pytest.param(each, id=each.label) for each in examples(PAGE, "console")])
async def test_transcripts(example: Example) -> None:
    async with running_node() as node, AsyncExitStack() as stack:
        assert same(await Transcript(node, stack).run(example.text)) == same(example.text)


class Peer:
    """Responds like another node, and records the requests."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := (await self._head(reader)):
            size = re.search(r"Content-Length: (\d+)", head)
            body = (await reader.readexactly(int(size[1]))).decode() if size else ""
            self.requests.append(head + body)
            answer = json.dumps(
                {"fingerprint": "other", "version": 7, "origins": {}, "uniqueID": "m1", "matched": 0}
            )
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n{answer}".encode())
        writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> str:
        try:
            return (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return ""


def without_age(request: str) -> str:
    """Replace the age of the origin in a request."""
    return re.sub(r"(X-Aphlict-Origin: \S+ \d+) [\d.]+", r"\1 AGE", same(request))


async def test_requests_between_nodes() -> None:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with running_node(cluster=[{"host": "127.0.0.1", "port": port}]) as node:
        await node.publish({"subscribers": ["a"], "uniqueID": "m1", "text": "hi"})
        await eventually(lambda: len(peer.requests) == 2, "the message")
        fingerprint = node.node.fingerprint
        origin = next(iter(node.node.report()))
    server.close()
    shown = [example.text for example in examples(PAGE, "http")]
    came = [
        each.replace(fingerprint, "pu8GmQQCvhmfqxr9")
        .replace(f"127.0.0.1:{port}", "b.internal:22281")
        .replace(origin, "L7py0MLD")
        for each in peer.requests
    ]
    assert [without_age(each) for each in came] == [without_age(each) for each in shown]
    assert [int(size) for each in came for size in re.findall(r"Content-Length: (\d+)", each)] == [
        int(size) for each in shown for size in re.findall(r"Content-Length: (\d+)", each)
    ]


def table(heading: str) -> dict[str, list[str]]:
    """The rows of the table under a heading, by their first cell."""
    part = re.split(rf"\n#+ {heading}\n", TEXT)[1].split("\n#")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if "|" in line
    ]
    return {first: rest for first, *rest in rows[2:]}


def test_the_close_codes_are_those_of_the_code() -> None:
    documented = {int(first.split()[0]) for first in table("Close codes")}
    refusals = {each.close_code for each in errors.ProtocolError.__subclasses__()}
    ours = {errors.ProtocolError.close_code, errors.InvalidToken.close_code}
    sent = {websocket.GOING_AWAY, websocket.TRY_AGAIN_LATER, *ours, *refusals}
    assert documented == {CLIENTS_OWN, *sent}


def test_each_limit_is_in_the_table_and_in_the_manual_of_the_log() -> None:
    columns = " ".join(key for key, *_ in table("Limits").values())
    assert set(re.findall(r"`([\w.]+)`", columns)) == {each.encode_name for each in structs.fields(Limits)}
    operations = (ROOT / "docs/operations.md").read_text()
    documented = operations.split("### Limits in the log")[1].split("\n## ")[0]
    assert [name for name in LIMIT_NAMES if f"`{name}`" not in documented] == []


async def test_the_keys_of_the_status_are_those_of_the_server() -> None:
    documented = [key for first in table("Status") for key in re.findall(r"`([\w.]+)`", first)]
    async with running_node() as node:
        status = await node.status()
    assert documented == list(status)


def error_classes() -> dict[str, type[errors.AphlictError]]:
    """The errors that are raised, by code."""
    found = [each for each in vars(errors).values() if isinstance(each, type)]
    classes = [
        each for each in found if issubclass(each, errors.AphlictError) and each is not errors.Forbidden
    ]
    assert len({each.code for each in classes}) == len(classes), "every class has a code of its own"
    return {each.code: each for each in classes}


def test_each_error_code_is_documented_once() -> None:
    part = TEXT.split("\n## Error codes\n")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)
    assert sorted(documented) == sorted(error_classes())


@pytest.mark.parametrize(
    ("heading", "columns"),
    [
        ("Errors of publishers", {0: "http_status"}),
        ("Errors of clients", {0: "http_status", 1: "close_code"}),
        ("Errors of commands and peers", {0: "exit_status"}),
    ],
)
def test_error_codes_have_these_numbers(heading: str, columns: dict[int, str]) -> None:
    """An empty cell is for an error that never becomes a response, a close frame or an exit status."""
    classes = error_classes()
    wrong = [
        (code, attribute)
        for code, cells in table(heading).items()
        for column, attribute in columns.items()
        if cells[column] and int(cells[column]) != getattr(classes[code.strip("`")], attribute)
    ]
    assert wrong == []
