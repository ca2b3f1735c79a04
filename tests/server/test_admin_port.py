"""The admin port: publishing and status."""

import asyncio
import json

import pytest

from aphlict.server import admin_port
from tests.support.nodes import receive, running_node, subscribed


async def curl(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "curl", "-s", "-i", "--max-time", "10", *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode()


async def test_curl_publishes_without_a_content_type_of_json() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "demo")
        answer = await curl("-d", '{"subscribers":["demo"],"text":"hello"}', f"localhost:{node.admin_port}")
        assert answer.startswith("HTTP/1.1 200 OK")
        [message] = await receive(browser, 1)
        assert message["text"] == "hello"


@pytest.mark.parametrize("kind", ["Content-Type:", "Content-Type: application/json", "Content-Type: a/b; c"])
async def test_any_or_no_content_type(kind: str) -> None:
    async with running_node() as node:
        for path in ("/", "/?instance=x", "?instance=x"):
            answer = await curl("-H", kind, "-d", '{"subscribers":[]}', f"localhost:{node.admin_port}{path}")
            assert answer.startswith("HTTP/1.1 200 OK")


async def test_the_receipt_has_node_message_and_number_of_subscribers() -> None:
    async with running_node() as node:
        await subscribed(node.url(), "a")
        await subscribed(node.url(), "a", "b")
        receipt = await node.publish({"subscribers": ["a", "b"], "uniqueID": "u"})
        assert receipt == {"fingerprint": node.node.fingerprint, "uniqueID": "u", "matched": 2}
        assert len(receipt["fingerprint"]) == 16
        assert receipt["fingerprint"].isalnum()


async def test_a_list_publishes_each_object_in_order() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        receipt = await node.publish(*({"subscribers": ["a"], "n": n, "uniqueID": str(n)} for n in range(3)))
        assert [each["uniqueID"] for each in receipt["receipts"]] == ["0", "1", "2"]
        assert [message["n"] for message in await receive(browser, 3)] == [0, 1, 2]


async def test_a_list_with_one_invalid_message_publishes_nothing() -> None:
    async with running_node() as node:
        body = json.dumps([{"subscribers": ["a"]}, {"text": "for nobody"}])
        status, answer = await node.ask("/", method="POST", body=body)
        assert status == 400
        assert answer["code"] == "no_subscribers"
        assert (await node.status())["messages.in"] == 0


async def test_an_integer_channel_counts_as_its_text() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "17")
        await node.publish({"subscribers": [17]})
        [message] = await receive(browser, 1)
        assert message["subscribers"] == ["17"]


async def test_the_instance_is_percent_decoded() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url("/ws/~caf%C3%A9/"), "a")
        await node.publish({"subscribers": ["a"], "text": "x"}, instance="caf%C3%A9")
        assert (await receive(browser, 1))[0]["text"] == "x"
        assert (await node.status("caf%C3%A9"))["clients.active"] == 1


async def test_the_status_has_all_keys_of_the_nodejs_server() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        await node.publish({"subscribers": ["a"]})
        await receive(browser, 1)
        status = await node.status()
        assert status["instance"] == "default"
        assert status["clients.active"] == status["clients.total"] == 1
        assert status["messages.in"] == status["messages.out"] == status["history.size"] == 1
        assert 0 <= status["history.age"] < 10_000
        assert 0 <= status["uptime"] < 60_000
        assert status["version"] == 7


async def test_the_status_of_an_instance_that_was_never_used() -> None:
    async with running_node() as node:
        status = await node.status("nobody")
        assert status["clients.active"] == status["history.size"] == 0
        assert status["history.age"] is None


BAD_BODIES = [
    b"",
    b"{",
    b"7",
    b'"text"',
    b"[1]",
    b"null",
    b"{}",
    b'{"subscribers": "a"}',
    b'{"subscribers": [1.5]}',
    b'{"subscribers": [true]}',
    b'{"subscribers": null}',
    b'{"subscribers": ["a"], "touched": 3}',
    b'{"subscribers": ["a"], "uniqueID": {}}',
    b'{"subscribers": ["\xff"]}',
    b'{"subscribers": ["a"], "text": "\xff"}',
    b'{"subscribers": ["a"], "n": NaN}',
    b'{"subscribers": ["' + b"x" * 257 + b'"]}',
    b'{"subscribers": [], "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: repr(body[:40]))
async def test_an_invalid_body_is_rejected(body: bytes) -> None:
    async with running_node() as node:
        status, answer = await node.ask("/", method="POST", body=body)
        assert status == 400
        assert answer["code"] in ("invalid_json", "invalid_message", "no_subscribers", "name_too_long")
        assert (await node.status())["messages.in"] == 0


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [("GET", "/", "POST"), ("DELETE", "/status/", "GET, HEAD")]
)
async def test_another_method_is_rejected_with_the_allowed_ones(method: str, path: str, allowed: str) -> None:
    async with running_node() as node:
        answer = await curl("-X", method, f"http://127.0.0.1:{node.admin_port}{path}")
        assert answer.startswith("HTTP/1.1 405 ")
        assert f"Allow: {allowed}" in answer
        assert json.loads(answer.split("\r\n\r\n")[1])["code"] == "method_not_allowed"


async def test_a_target_may_be_an_absolute_url() -> None:
    async with running_node() as node:
        ports = [
            (node.admin_port, "/status/"),
            (node.client_port, "/ws/status"),
            (node.client_port, "/aphlict.js"),
        ]
        for port, path in ports:
            target = ("--request-target", f"http://localhost:{port}{path}")
            answer = await curl(*target, f"http://localhost:{port}/")
            assert answer.startswith("HTTP/1.1 200 OK"), answer


async def test_another_path_is_not_found() -> None:
    async with running_node() as node:
        status, answer = await node.ask("/nothing", method="POST", body=b"{}")
        assert status == 404
        assert answer["code"] == "not_found"


async def test_a_body_that_is_too_large_is_rejected() -> None:
    async with running_node(limits__body=1000) as node:
        status, answer = await node.ask("/", method="POST", body=b" " * 1001)
        assert status == 413
        assert answer["code"] == "body_too_large"


async def test_curl_publishes_a_chunked_body() -> None:
    text = "x" * 100_000  # more than one read returns
    body = json.dumps({"subscribers": ["a"], "text": text})
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        url = f"http://127.0.0.1:{node.admin_port}/"
        chunked = ("-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue", "-d", body, url)
        plain = ("-s", "-d", '{"subscribers": []}', "-w", " connections: %{num_connects}", url)
        answers = await curl(*chunked, "--next", *plain)
        assert answers.startswith("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")
        assert answers.endswith(" connections: 0"), "the first connection is reused"
        assert (await receive(browser, 1))[0]["text"] == text


async def test_a_chunked_body_that_becomes_too_large_is_rejected() -> None:
    async with running_node(limits__body=1000) as node:
        answer = await curl(
            "-H", "Transfer-Encoding: chunked", "-d", "x" * 5000, f"http://127.0.0.1:{node.admin_port}/"
        )
        assert answer.startswith("HTTP/1.1 413 ")


async def test_the_response_does_not_wait_for_a_long_fan_out() -> None:
    async with running_node() as node:
        browsers = [await subscribed(node.url(), "a") for _ in range(600)]
        receipt = await node.publish({"subscribers": ["a"], "text": "x"})
        assert receipt["matched"] == 600
        for browser in browsers:
            assert (await receive(browser, 1))[0]["text"] == "x"


async def test_a_long_list_is_parsed_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_port, "MAX_SLICE_SECONDS", 0)
    async with running_node() as node:
        turns = 0

        def count() -> None:
            nonlocal turns
            turns += 1
            asyncio.get_running_loop().call_soon(count)

        count()
        messages = [{"subscribers": ["a"], "uniqueID": str(number)} for number in range(100)]
        browser = await subscribed(node.url(), "a")
        before = turns
        receipt = await node.publish(*messages)
        assert turns > before + 100
        assert [each["uniqueID"] for each in receipt["receipts"]] == [each["uniqueID"] for each in messages]
        assert [each["uniqueID"] for each in await receive(browser, 100)] == [str(n) for n in range(100)]
        status, _ = await node.ask("/", method="POST", body=json.dumps([*messages, {}]))
        assert status == 400
        assert (await node.status())["messages.in"] == 100
        await browser.close()
