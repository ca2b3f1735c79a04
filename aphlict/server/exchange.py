"""One HTTP request and its answer, on either port."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import parse_qs

from msgspec.json import encode as encode_json

from aphlict.errors import AphlictError, InvalidMessage
from aphlict.protocol import http as answers
from aphlict.protocol.http import Request
from aphlict.server.http_connection import RequestConnection
from aphlict.server.streaming import BrowserConnection

log = logging.getLogger(__name__)

MAX_ARGUMENTS = 2048  # in a query
NO_HEADERS: Mapping[str, str] = {}
NOTHING_MORE: Mapping[str, object] = {}


class Handler(Protocol):
    """What answers requests."""

    def handle(self, exchange: "Exchange", /) -> None:
        """Answer a whole request, now or later; an AphlictError that is raised becomes the answer."""


def read_query(query: str) -> dict[str, list[str]]:
    """Read the arguments in a target. Raises InvalidMessage where they cannot be read."""
    if not query:
        return {}
    try:
        text = query.encode("latin-1").decode()  # UTF-8 may come without percent-encoding
        return parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_ARGUMENTS)
    except ValueError as error:
        raise InvalidMessage("the query is not UTF-8 in percent-encoding, or too long") from error


class Exchange:
    """One request and its answer. The names in `headers` are lower-case; `keep`: the connection may bear another."""

    def __init__(
        self,
        connection: RequestConnection | BrowserConnection,
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
        """The last value of a query argument. Raises InvalidMessage where the query cannot be read."""
        values = read_query(self._query).get(name)
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

    def fail(self, error: AphlictError, more: Mapping[str, object] = NOTHING_MORE) -> None:
        """Answer with an error's status and sentence, and `more` keys beside it; the connection ends."""
        self._connection.count(error)
        self._keep = False
        headers = {**answers.PRIVATE, **answers.fields_of(error)}
        self.answer_json(error.http_status, {**answers.refusal(error), **more}, headers)

    def answer_json(self, status: int, value: Any, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """Answer with JSON."""
        self.answer(status, encode_json(value), {**answers.JSON, **headers})

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Answer; only the first answer counts."""
        if not self._answered:
            self._answered = True
            answer = answers.whole(status, headers, body, keep=self._keep)
            if self.method == "HEAD":
                answer = answers.without_body(answer)
            self._connection.answer(answer, keep=self._keep)
