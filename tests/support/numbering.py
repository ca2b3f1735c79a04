"""A node of a cluster that the test plays: it numbers messages, and decides when they reach which real node."""

import json
from collections.abc import Sequence
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest

FINGERPRINT = "playedbythetest0"
ORIGIN = "testtest"


class FakeOrigin:
    """Sends requests to admin ports as a node with this origin does. `age` is that of the origin, in seconds."""

    def __init__(
        self,
        origin: str = ORIGIN,
        *,
        fingerprint: str = FINGERPRINT,
        age: float = 1000.0,
        host: str = "127.0.0.1",
    ) -> None:
        self.origin = origin
        self.fingerprint = fingerprint
        self.age = age
        self._host = host

    async def greet(self, port: int, after: int = 0) -> dict[str, Any]:
        """Request the status, as a node does first: everything up to `after` has been sent, or never will be."""
        status, answer = await self.request(port, "/status/", self.fields(after))
        assert status == 200, answer
        assert isinstance(answer, dict)
        return answer

    async def send(
        self,
        port: int,
        *numbers: int,
        after: int | None = None,
        touched: Sequence[str] = (),
        instance: str = "default",
    ) -> list[dict[str, Any]]:
        """Send messages with these numbers to channel `a`, in one POST; return their receipts."""
        messages = [self.message(number, touched=list(touched)) for number in numbers]
        fields = self.fields(min(numbers) - 1 if after is None else after)
        status, answer = await self.request(port, f"/?instance={instance}", fields, json.dumps(messages))
        assert status == 200, answer
        receipts = answer["receipts"]
        assert isinstance(receipts, list)
        return receipts

    async def bring(self, port: int, *numbers: int) -> None:
        """Send messages as another node, which has received them from this one."""
        messages = json.dumps([self.message(number) for number in numbers])
        other = FakeOrigin("relaying", fingerprint="another node")
        status, answer = await other.request(port, "/", other.fields(0), messages)
        assert status == 200, answer

    def message(self, number: int, **more: object) -> dict[str, object]:
        """Return a message as nodes send it to each other."""
        return {
            "subscribers": ["a"],
            "uniqueID": f"m{number}",
            "n": number,
            "aphlict.origin": f"{self.origin} {number}",
            **more,
        }

    def fields(self, after: int) -> dict[str, str]:
        """Return the header fields of a request."""
        return {
            "X-Aphlict-Node": self.fingerprint,
            "X-Aphlict-Origin": f"{self.origin} {after} {self.age:.3f}",
        }

    async def request(
        self, port: int, path: str, fields: dict[str, str], body: str | None = None
    ) -> tuple[int, Any]:
        """Send a request with these header fields; return the HTTP status and the JSON of the response."""
        answer = await AsyncHTTPClient().fetch(
            HTTPRequest(
                f"http://{self._host}:{port}{path}",
                "GET" if body is None else "POST",
                headers=fields,
                body=body,
            ),
            raise_error=False,
        )
        return answer.code, json.loads(answer.body)
