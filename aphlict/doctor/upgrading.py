"""The upgrade to a WebSocket: who refused it, and which header was lost on the way."""

from aphlict.config.settings import ServerSettings
from aphlict.doctor.browser import SWITCHING, Browser
from aphlict.doctor.findings import Note, Trouble
from aphlict.doctor.hops import ANY_SEND, ANY_UPGRADE, PASS_UPGRADE, SEND_HERE, hop_of, name_hop
from aphlict.doctor.reaching import Reaching, explain
from aphlict.doctor.stream import Answer, NotHttp

REDIRECTS = {301, 302, 303, 307, 308}
# What our own server says where a header was lost on the way to it: a part of its sentence, and the loss.
LOST = {
    "asked for no upgrade": "the Upgrade header",
    "does not name Upgrade": "the Connection header (it has to say upgrade)",
    "begins with GET and HTTP/1.1": "HTTP/1.1 (the request arrived as HTTP/1.0)",
    "version 13": "the Sec-WebSocket-Version header",
    "Sec-WebSocket-Key": "the Sec-WebSocket-Key header",
}
NO_REQUEST = "no HTTP/1.1 request line"
OTHER_ORIGIN = "the key 'origins' of this server does not name it"
SHOW_ONE = "give a good one: aphlict token --channel 'aphlict-doctor-*' | aphlict doctor --token-file - …"
# What only an admin port says: of a path that it does not have, and to those who may not speak there.
ADMIN_PORT = ("POST / publishes", "admin server", "admin.hosts")


def upgrade(reaching: Reaching, client: ServerSettings, note: Note) -> tuple[Browser, Answer]:
    """Connect as a browser; `client` is where the proxy should lead to. Raises Trouble."""
    target = reaching.target
    try:
        browser, answer = _ask(reaching)
    except OSError as error:
        raise _no_answer(reaching, error) from error
    if answer.status != SWITCHING:
        browser.close()
        raise _refused(reaching, client, answer)
    if not browser.accepted(answer):
        browser.close()
        raise Trouble(
            f"{name_hop(answer)} answers 101 but has not read the request: a cache or another service is in the way",
            "have the path passed to Aphlict's client port unchanged",
        )
    server = answer.headers.get("server")
    note.says = f"{target.path} becomes a WebSocket" + (f", through {server}" if server else "")
    return browser, answer


def _ask(reaching: Reaching) -> tuple[Browser, Answer]:
    browser = Browser(reaching.open(), reaching.target)
    try:
        return browser, browser.shake_hands()
    except OSError:
        browser.stream.close()
        raise


def _no_answer(reaching: Reaching, error: OSError) -> Trouble:
    target = reaching.target
    if not target.tls and reaching.speaks_tls():
        return _wants_tls(reaching)
    if isinstance(error, NotHttp):
        return Trouble(
            f"port {target.port} of {target.host} does not speak HTTP: {error}",
            "correct the port in the URL, or in the proxy",
        )
    change = "see the proxy's error log; a port with proxy.protocol wants that header from its proxy first"
    return Trouble(f"the request for the upgrade was not answered: {explain(error)}", change)


def _wants_tls(reaching: Reaching) -> Trouble:
    target = reaching.target
    return Trouble(
        f"port {target.port} speaks TLS, and {target.url} is without",
        f"use wss://{target.authority}{target.path}",
    )


def _refused(reaching: Reaching, client: ServerSettings, answer: Answer) -> Trouble:
    for sentence, lost in LOST.items():
        if answer.error is not None and sentence in answer.error:
            return _header_lost(answer, lost)
    who = name_hop(answer)
    if answer.status in REDIRECTS:
        where = answer.headers.get("location", "nowhere")
        return Trouble(
            f"{who} redirects to {where[:200]}, and browsers do not follow that for a WebSocket",
            f"use {_as_websocket(where)} as the URL, or leave this path out of the redirect",
        )
    if answer.status == 400 and not reaching.target.tls and reaching.speaks_tls():
        return _wants_tls(reaching)
    if answer.status == 403 and answer.error is not None and OTHER_ORIGIN in answer.error:
        page = reaching.target.origin
        return Trouble(
            f"Aphlict lets no pages of {page} in (403)",
            f'add "{page}" to "origins" of the client server on port {client.port}, and send SIGHUP; '
            "or have the proxy leave the header Origin as it is",
        )
    if answer.error is not None and any(words in answer.error for words in ADMIN_PORT):
        return Trouble("the path leads to Aphlict's admin port", f"lead it to the client port, {client.port}")
    if answer.status == 400 and answer.error is not None and NO_REQUEST in answer.error:
        return Trouble(
            "Aphlict cannot read what comes first: a balancer sends a PROXY protocol header that it does not expect",
            'set "proxy.protocol": true for the client server, or take send-proxy away from the balancer',
        )
    if answer.error is not None and answer.headers.get("www-authenticate", "").startswith("Bearer"):
        return Trouble(f"Aphlict answers {answer.status}: {answer.error}", SHOW_ONE)
    if answer.error is not None:
        return Trouble(
            f"Aphlict answers {answer.status}: {answer.error}", "see docs/troubleshooting.md for that answer"
        )
    return _refused_by_proxy(reaching, client, answer, who)


def _header_lost(answer: Answer, lost: str) -> Trouble:
    """The server's sentence came, so the path is right; whoever put `Server` on it is the last hop."""
    hop = hop_of(answer)
    who = name_hop(answer)
    by = "on the way" if who == "Aphlict itself" else f"at {who}"
    return Trouble(
        f"the upgrade was refused ({answer.status}): {lost} got lost {by}", PASS_UPGRADE.get(hop, ANY_UPGRADE)
    )


def _as_websocket(location: str) -> str:
    return location.replace("http", "ws", 1) if location.startswith("http") else "its target"


def _refused_by_proxy(reaching: Reaching, client: ServerSettings, answer: Answer, who: str) -> Trouble:
    path, hop, status = reaching.target.path, hop_of(answer), answer.status
    here = f"{SEND_HERE.get(hop, ANY_SEND)}: Aphlict listens on port {client.port} of this machine"
    says = f"{who} answers {status} {answer.reason}".rstrip()
    if status == 404:
        return Trouble(f"{says}: it does not pass {path} to Aphlict", f"add that path; {_ready(answer)}")
    if status in (401, 403):
        change = f"let {path} through without a login: Aphlict has none, and scripts cannot fill in a form"
        return Trouble(f"{says}: it does not let the browser in", change)
    if status in (502, 503):
        says += ": it does not reach Aphlict"
        if client.proxy_protocol:
            here += ', and drops who sends no PROXY protocol header first ("proxy.protocol": true)'
        return Trouble(says, here)
    if status == 504:
        return Trouble(f"{says}: what it passes {path} to does not answer it", here)
    if status == 500:
        change = "see its error log; in Apache a missing module (a2enmod proxy_http proxy_wstunnel) looks so"
        return Trouble(f"{says} to the upgrade", change)
    if status in (200, 204, 304):
        return Trouble(f"{says}, a page, for {path}: the site answers, not Aphlict", _ready(answer))
    return Trouble(f"{says} instead of the upgrade", PASS_UPGRADE.get(hop, ANY_UPGRADE))


def _ready(answer: Answer) -> str:
    folder = {"nginx": "conf/nginx", "Apache": "conf/apache", "HAProxy": "conf/haproxy"}.get(name_hop(answer))
    return f"{folder or 'conf'} has configurations that are ready"
