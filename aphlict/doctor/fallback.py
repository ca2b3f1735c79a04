"""What browsers without WebSocket and load balancers use: status, events, polling."""

import secrets

from aphlict.doctor.asking import AdminServer
from aphlict.doctor.browser import request
from aphlict.doctor.delivery import PATIENCE, publish
from aphlict.doctor.findings import CheckList, Trouble
from aphlict.doctor.hops import ANY_NO_BUFFER, NO_BUFFER, Hop, hop_of, name_hop
from aphlict.doctor.reaching import Reaching, explain
from aphlict.doctor.stream import Answer, Stream

FOUND = 200
LEAD_ON = "pass everything below the path on, not upgrades alone (docs/proxies.md)"
LONGEST_WAIT = 64 * 1024  # bytes of an event stream that are read for one event


def check_pages(reaching: Reaching, checks: CheckList) -> Hop:
    """…/status, which load balancers ask for, and …/poll; who it is that answers, if that can be told."""
    hop = Hop.OTHER
    for name, path in ("status page", "status"), ("polling", f"poll?channel={_channel()}&wait=0"):
        page = reaching.target.page(path)
        try:
            answer = _get(reaching, page)
        except OSError as error:
            checks.doubt(name, f"{page} was not answered: {explain(error)}", LEAD_ON)
            continue
        hop = hop_of(answer)
        if answer.status == FOUND and isinstance(answer.json, dict):
            with checks.check(name) as note:
                note.says = f"{page.partition('?')[0]} is answered"
        else:
            says = f"{name_hop(answer)} answers {answer.status} to {page.partition('?')[0]}"
            checks.doubt(name, says, LEAD_ON)
    return hop


def _get(reaching: Reaching, path: str) -> Answer:
    stream = reaching.open()
    try:
        stream.send(request(reaching.target, path, {"Connection": "close"}))
        return stream.take_answer()
    finally:
        stream.close()


def check_events(reaching: Reaching, admin: AdminServer, checks: CheckList, hop: Hop) -> None:
    """…/events: whether it is there, and whether an event comes when it is sent. Raises Trouble.

    `hop`: who answered other pages, since a proxy may hold back even the head of this answer.
    """
    path = reaching.target.page("events")
    try:
        stream = reaching.open(PATIENCE)
    except OSError as error:
        checks.doubt("events", f"{path} was not answered: {explain(error)}", LEAD_ON)
        return
    try:
        _EventStream(reaching, admin, stream, path, hop).check(checks)
    finally:
        stream.close()


class _EventStream:
    """One request for events."""

    def __init__(self, reaching: Reaching, admin: AdminServer, stream: Stream, path: str, hop: Hop) -> None:
        self._target = reaching.target
        self._admin = admin
        self._stream = stream
        self._path = path
        self._hop = hop
        self._channel = _channel()

    def check(self, checks: CheckList) -> None:
        """Judge it. Raises Trouble."""
        try:
            head = self._ask()
        except OSError as error:
            checks.doubt("events", f"{self._path} was not answered: {explain(error)}", LEAD_ON)
            return
        if head is not None and not _is_stream(head):
            says = f"{name_hop(self._stream.finish(head))} answers {head.status} to {self._path}"
            checks.doubt("events", says, LEAD_ON)
            return
        matched = publish(self._admin, self._target.instance, self._channel)
        if not matched and head is None:
            checks.doubt("events", f"{self._path} was not answered in time", LEAD_ON)
            return
        with checks.check("events") as note:
            self._receive(head)
            note.says = f"{self._path} brings a message when it is published"

    def _ask(self) -> Answer | None:
        """The head of the answer; None where it does not come in time: a proxy may hold back even that."""
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip, deflate"}
        self._stream.send(request(self._target, f"{self._path}?channel={self._channel}", headers))
        try:
            return self._stream.take_head()
        except TimeoutError:
            return None

    def _receive(self, head: Answer | None) -> None:
        hop = self._hop if head is None else hop_of(head)
        who, advice = hop.value, NO_BUFFER.get(hop, ANY_NO_BUFFER)
        if head is not None and "content-encoding" in head.headers:
            raise Trouble(f"{who} compresses the stream of events, and so holds them back", advice)
        self._stream.set_timeout(PATIENCE)
        try:
            self._stream.take_until(self._channel.encode(), LONGEST_WAIT)
        except OSError as error:
            says = (
                f"{who} buffers the stream of events: one that was sent did not arrive within {PATIENCE:g} s"
            )
            raise Trouble(says, advice) from error


def _is_stream(head: Answer) -> bool:
    return head.status == FOUND and head.headers.get("content-type", "").startswith("text/event-stream")


def _channel() -> str:
    return f"aphlict-doctor-{secrets.token_hex(8)}"
