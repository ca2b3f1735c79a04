"""The other nodes of the cluster: reachable, and of the same mind about who belongs to it."""

import ssl
import time
from typing import Any

from aphlict.config.settings import PeerSettings, Settings
from aphlict.doctor.asking import admin_of
from aphlict.doctor.findings import CheckList, Trouble
from aphlict.doctor.reaching import explain
from aphlict.doctor.stream import Ended
from aphlict.errors import CertificateError

API_VERSION = 7


def check_peers(settings: Settings, own: dict[str, Any], checks: CheckList, clocks: dict[str, float]) -> None:
    """Look at every peer, whatever the others are like. `own` is this node's status; `clocks` takes their times."""
    for position, peer in enumerate(settings.peers):
        name = f"peer {peer.host}:{peer.port}"
        try:
            with checks.check(name) as note:
                status = look(peer, clocks)
                note.says = _describe(status, own)
                _check_relaying(own, position, name)
        except Trouble:
            continue
        _compare(name, status, own, checks)


def look(peer: PeerSettings, clocks: dict[str, float]) -> dict[str, Any]:
    """The status of a peer. Raises Trouble."""
    try:
        admin = admin_of(peer)
        answer = admin.ask("GET", "/status/")
    except OSError as error:
        raise _unreachable(peer, error) from error
    except CertificateError as error:
        raise Trouble(str(error), "correct the files, or run this as a user who may read them") from error
    if answer.status in (401, 403) and answer.error is not None:
        change = 'give all nodes the same admin.secret, or this peer a "secret" of its own in `cluster`; '
        change += "a 403 for its name: add that name to admin.hosts over there"
        raise Trouble(f"{admin.url} refuses this node ({answer.status}): {answer.error}", change)
    status = answer.json
    if not isinstance(status, dict) or status.get("version") != API_VERSION:
        what = f"answers {answer.status} to /status/, and not as an admin server does"
        raise Trouble(
            f"{admin.url} {what}", "give the port of its admin server in `cluster`, not of the client server"
        )
    if "time" in status:
        clocks[f"{peer.host}:{peer.port}"] = status["time"] / 1000 - time.time()
    return status


def _unreachable(peer: PeerSettings, error: OSError) -> Trouble:
    where = f"{peer.host}:{peer.port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        change = "give its authority in ssl.ca of that peer, or have it use a certificate for that name"
        return Trouble(f"the certificate of {where} is not trusted: {error.verify_message}", change)
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        change = "give ssl.cert and ssl.key of that peer a certificate that its ssl.ca has signed"
        return Trouble(f"{where} does not take this node's certificate ({error.reason})", change)
    if isinstance(error, ssl.SSLError):
        change = 'set its protocol to "http", or give that admin server ssl.key and ssl.cert'
        return Trouble(f"{where} does not speak TLS ({explain(error)})", change)
    if peer.protocol == "https" and isinstance(error, (ConnectionResetError, Ended)):
        change = "if it has ssl.ca, give ssl.cert and ssl.key of that peer; else see its log"
        return Trouble(f"{where} closed the connection before it answered", change)
    if peer.protocol == "http" and isinstance(error, ConnectionResetError):
        return Trouble(f"{where} closed the connection", 'set its protocol to "https" if it has ssl.key')
    if isinstance(error, ConnectionRefusedError):
        change = 'start it; its admin server has to "listen" on an address that is reachable from here'
        return Trouble(f"nothing listens on {where}", change)
    change = "open the port in the firewall between the nodes, or correct host and port in `cluster`"
    return Trouble(f"{where} cannot be reached: {explain(error)}", change)


def _describe(status: dict[str, Any], own: dict[str, Any]) -> str:
    fingerprint = status.get("fingerprint")
    if fingerprint is None:
        return "is a Node.js server"
    return "is this node itself" if fingerprint == own.get("fingerprint") else f"is node {fingerprint}"


def _check_relaying(own: dict[str, Any], position: int, name: str) -> None:
    """What this node's relay says of it. Raises Trouble."""
    relays = own.get("peers", [])
    if position >= len(relays):
        raise Trouble(
            f"{name} is in the configuration, and the running node does not know it", "restart the server"
        )
    relay = relays[position]
    if relay["last_error"] and relay["state"] == "down":
        raise Trouble(
            f"it answers here, but the running node cannot reach it: {relay['last_error']}",
            "compare the user and the network that the server runs with to yours; see its log",
        )


def _compare(name: str, status: dict[str, Any], own: dict[str, Any], checks: CheckList) -> None:
    """Whether it lists this node too, and has no trouble with it."""
    fingerprint = own.get("fingerprint")
    if "fingerprint" not in status or status["fingerprint"] == fingerprint:
        return
    ours = [each for each in status.get("peers", []) if each["fingerprint"] == fingerprint]
    if ours:
        if ours[0]["last_error"]:
            says = f"it has trouble with this node: {ours[0]['last_error']}"
            checks.doubt(name, says, "see its log")
        return
    down = [f"{each['host']}:{each['port']}" for each in status.get("peers", []) if each["state"] == "down"]
    also = f"; it cannot reach {', '.join(down)}" if down else ""
    checks.doubt(
        name,
        f"does not know this node{also}: what is published there does not come here",
        "list this node's admin server in `cluster` of its configuration, and restart it",
    )
