"""What another node's answers say: who it is, whether it took what it was sent, and if not, why."""

from http import HTTPStatus
from typing import NamedTuple

import msgspec

from aphlict.cluster.http_client import Answer
from aphlict.errors import BadResponse, PeerHTTPError

MOST_REASON = 200


class Identity(NamedTuple):
    """Who answers. A Node.js server takes no lists, and names itself only in the answer to a message."""

    fingerprint: str | None
    takes_lists: bool


class _Status(msgspec.Struct):
    version: int
    fingerprint: str | None = None


class _Receipt(msgspec.Struct, rename={"unique_id": "uniqueID"}):
    fingerprint: str
    unique_id: str | None = None
    receipts: list[object] | None = None


class _Taken(msgspec.Struct, rename={"unique_id": "uniqueID"}):
    unique_id: str


class _Error(msgspec.Struct):
    error: str


class _Part(msgspec.Struct):
    receipts: list[_Taken]


_part = msgspec.json.Decoder(_Part)


def read_status(answer: Answer) -> Identity:
    """The answer to GET /status/. Raises PeerError."""
    _refuse_errors(answer)
    try:
        status = msgspec.json.decode(answer.body, type=_Status)
    except msgspec.MsgspecError as error:
        raise BadResponse("its status is not that of an admin server") from error
    return Identity(status.fingerprint or None, takes_lists=bool(status.fingerprint))


def read_receipt(answer: Answer) -> Identity:
    """The answer to a POST, which tells from its shape what kind of node took it. Raises PeerError."""
    _refuse_errors(answer)
    try:
        receipt = msgspec.json.decode(answer.body, type=_Receipt)
    except msgspec.MsgspecError as error:
        raise BadResponse("its answer to a message is not that of an admin server") from error
    takes_lists = receipt.unique_id is not None or receipt.receipts is not None
    return Identity(receipt.fingerprint or None, takes_lists=takes_lists)


def _refuse_errors(answer: Answer) -> None:
    if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
        raise PeerHTTPError(answer.status, _reason(answer), _taken(answer))


def _taken(answer: Answer) -> int:
    """How many messages of a list were taken before the others were refused."""
    if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
        return 0
    try:
        return len(_part.decode(answer.body).receipts)
    except msgspec.MsgspecError:
        return 0


def _reason(answer: Answer) -> str:
    """The sentence of an error answer, fit for a line in a log."""
    try:
        text = msgspec.json.decode(answer.body, type=_Error).error
    except msgspec.MsgspecError:
        text = answer.reason
    return (
        "".join(letter if letter.isprintable() else " " for letter in text[:MOST_REASON]) or "no reason given"
    )
