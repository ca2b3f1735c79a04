"""One HTTP request and its answer, on either port."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from msgspec.json import encode as encode_json

from aphlict.errors import AphlictError, MethodNotAllowed
from aphlict.protocol import http
from aphlict.protocol.http import NO_FIELDS, NO_MEMBERS, Request, parse_query
from aphlict.server.http_connection import HTTPConnection

log = logging.getLogger(__name__)


class Handler(Protocol):
    """What answers requests."""

    def handle(self, exchange: "Exchange", /) -> None:
        """Answer a whole request, now or later; an AphlictError that is raised becomes the answer."""


class Exchange:
    """One request and its answer. The names in `headers` are lower-case; `keep`: the connection may bear another."""

    def __init__(
        self,
        connection: HTTPConnection,
        request: Request,
        body: bytes = b"",
        *,
        keep: bool,
    ) -> None:
        self.method = request.method
        self.path, _, self._query = request.target.partition("?")
        self.headers = request.headers
        self.address = connection.address
        self.body = body
        self._connection = connection
        self._keep = keep
        self._answered = False

    def argument(self, name: str) -> str | None:
        """The last value of a query argument. Raises BadRequest where the query cannot be read."""
        values = parse_query(self._query).get(name)
        return values[-1] if values else None

    def handle_with(self, handler: Handler) -> None:
        """Let the handler answer; what it raises becomes the answer."""
        try:
            handler.handle(self)
        except AphlictError as error:
            log.debug("refused %s %s of %s: %s", self.method, self.path, self.address, error)
            self.fail(error)
        except Exception:
            log.exception("internal error on %s %s; please report this", self.method, self.path)
            self.fail(AphlictError("internal error; the log of the server says more"))

    def fail(self, error: AphlictError, members: Mapping[str, object] = NO_MEMBERS) -> None:
        """Answer with an error, and more members of its JSON object; the connection ends, unless it is a 405."""
        self._connection.count(error)
        self._keep = keep = self._keep and isinstance(error, MethodNotAllowed)
        is_head = self.method == "HEAD"
        self._send(http.error_response(error, members=members, keep_alive=keep, is_head=is_head))

    def answer_json(self, status: int, value: Any, headers: Mapping[str, str] = NO_FIELDS) -> None:
        """Answer with JSON."""
        self.answer(status, encode_json(value), {**http.JSON, **headers})

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Answer; only the first answer counts."""
        is_head = self.method == "HEAD"
        self._send(http.response(status, headers, body, keep_alive=self._keep, is_head=is_head))

    def _send(self, response: bytes) -> None:
        if not self._answered:
            self._answered = True
            self._connection.respond(response, keep_alive=self._keep)
