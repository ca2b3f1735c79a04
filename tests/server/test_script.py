"""The script of the browser client, as the client port serves it."""

import gzip
from pathlib import Path

from tornado.httpclient import AsyncHTTPClient, HTTPResponse

import aphlict
from tests.support.nodes import RunningNode, running_node

BUILT = Path(aphlict.__file__).parent / "browser" / "aphlict.js"


async def fetch(node: RunningNode, path: str = "/ws/aphlict.js", **headers: str) -> HTTPResponse:
    url = f"http://127.0.0.1:{node.client_port}{path}"
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await AsyncHTTPClient().fetch(url, headers=names, decompress_response=False, raise_error=False)


async def test_pages_of_any_origin_may_import_it_under_any_prefix() -> None:
    async with running_node() as node:
        for path in ("/aphlict.js", "/ws/aphlict.js", "/ws/~acme/aphlict.js"):
            answer = await fetch(node, path)
            assert answer.code == 200
            assert answer.body == BUILT.read_bytes()
            assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
            assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_it_is_compressed_if_accepted() -> None:
    async with running_node() as node:
        answer = await fetch(node, accept_encoding="br, gzip")
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert gzip.decompress(answer.body) == BUILT.read_bytes()
        assert answer.headers["ETag"] != (await fetch(node)).headers["ETag"]
        refused = await fetch(node, accept_encoding="gzip;q=0")
        assert "Content-Encoding" not in refused.headers
        assert refused.body == BUILT.read_bytes()


async def test_a_browser_with_a_copy_gets_304() -> None:
    async with running_node() as node:
        first = await fetch(node)
        assert "max-age=" in first.headers["Cache-Control"]
        again = await fetch(node, if_none_match=f'W/"x", {first.headers["ETag"]}')
        assert (again.code, again.body) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
        assert (await fetch(node, if_none_match='"other"')).code == 200
