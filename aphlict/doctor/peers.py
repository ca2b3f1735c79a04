"""The peers of this node: whether they are reachable, and whether they list this node."""

import ssl
import time
from typing import Any

from aphlict.config.settings import PeerSettings, Settings
from aphlict.doctor.admin_client import peer_admin
from aphlict.doctor.connector import explain
from aphlict.doctor.report import CheckFailed, CheckReport
from aphlict.errors import (
    BadResponse,
    CertificateError,
    PeerDisconnected,
    PeerTimeout,
    PeerTLSError,
    PeerUnreachable,
)

API_VERSION = 7


def check_peers(
    settings: Settings, local_status: dict[str, Any], report: CheckReport, clocks: dict[str, float]
) -> None:
    """Check every peer. `local_status` is this node's; `clocks` receives the offsets of the peers' clocks."""
    for position, peer in enumerate(settings.peers):
        name = f"peer {peer.host}:{peer.port}"
        try:
            with report.check(name) as passed:
                status = _fetch_status(peer, clocks)
                passed.message = _describe(status, local_status)
                _check_relay(local_status, position, name)
        except CheckFailed:
            continue
        _check_listed(name, status, local_status, report)


def _fetch_status(peer: PeerSettings, clocks: dict[str, float]) -> dict[str, Any]:
    """Return the status of a peer. Raises CheckFailed."""
    try:
        admin = peer_admin(peer)
        response = admin.request("GET", "/status/")
    except OSError as error:
        raise _unreachable(peer, error) from error
    except CertificateError as error:
        remedy = "correct the files, or run this as a user that can read them"
        raise CheckFailed(error.code, str(error), remedy) from error
    if response.status in (401, 403) and response.code is not None:
        remedy = 'give all nodes the same admin.secret, or this peer a "secret" of its own in `cluster`; '
        remedy += "if it rejects the host name, add it to admin.hosts on that node"
        message = f"{admin.url} rejects this node ({response.status}): {response.error}"
        raise CheckFailed(response.code, message, remedy)
    status = response.json
    if not isinstance(status, dict) or status.get("version") != API_VERSION:
        raise CheckFailed(
            BadResponse.code,
            f"{admin.url} responded with {response.status} to /status/, which is not the response of an admin server",
            "use the port of its admin server in `cluster`, not that of its client server",
        )
    if "time" in status:
        clocks[f"{peer.host}:{peer.port}"] = status["time"] / 1000 - time.time()
    return status


def _unreachable(peer: PeerSettings, error: OSError) -> CheckFailed:
    address = f"{peer.host}:{peer.port}"
    if isinstance(error, ssl.SSLError):
        return _tls_error(address, error)
    if peer.protocol == "https" and isinstance(error, ConnectionResetError):
        remedy = "if it has ssl.ca, set ssl.cert and ssl.key of that peer; otherwise see its log"
        return CheckFailed(
            PeerDisconnected.code, f"{address} closed the connection without a response", remedy
        )
    if isinstance(error, ConnectionResetError):
        remedy = 'set its protocol to "https" if it has ssl.key'
        return CheckFailed(PeerDisconnected.code, f"{address} closed the connection", remedy)
    if isinstance(error, ConnectionRefusedError):
        remedy = 'start it; its admin server must "listen" on an address that this node can reach'
        return CheckFailed(PeerUnreachable.code, f"nothing listens on {address}", remedy)
    code = PeerTimeout.code if isinstance(error, TimeoutError) else PeerUnreachable.code
    remedy = "open the port in the firewall between the nodes, or correct host and port in `cluster`"
    return CheckFailed(code, f"cannot connect to {address}: {explain(error)}", remedy)


def _tls_error(address: str, error: ssl.SSLError) -> CheckFailed:
    code = PeerTLSError.code
    if isinstance(error, ssl.SSLCertVerificationError):
        message = f"the certificate of {address} is not trusted: {error.verify_message}"
        remedy = "set ssl.ca of that peer to its authority, or use a certificate for that name there"
        return CheckFailed(code, message, remedy)
    if "ALERT" in (error.reason or ""):
        message = f"{address} rejects this node's certificate ({error.reason})"
        remedy = "set ssl.cert and ssl.key of that peer to a certificate that an authority in its ssl.ca has signed"
        return CheckFailed(code, message, remedy)
    message = f"{address} does not speak TLS ({explain(error)})"
    return CheckFailed(
        code, message, 'set its protocol to "http", or give that admin server ssl.key and ssl.cert'
    )


def _describe(status: dict[str, Any], local_status: dict[str, Any]) -> str:
    fingerprint = status.get("fingerprint")
    if fingerprint is None:
        return "a Node.js server"
    return "this node itself" if fingerprint == local_status.get("fingerprint") else f"node {fingerprint}"


def _check_relay(local_status: dict[str, Any], position: int, name: str) -> None:
    """Check the state of the peer as the running node reports it. Raises CheckFailed."""
    relays = local_status.get("peers", [])
    if position >= len(relays):
        message = f"{name} is in the configuration, but the running node does not know it"
        raise CheckFailed("restart_required", message, "restart the server")
    relay = relays[position]
    if relay["last_error"] and relay["state"] == "down":
        raise CheckFailed(
            "relay_down",
            f"reachable from here, but not from the running node: {relay['last_error']}",
            "compare the user and the network of the server with yours; see its log",
        )


def _check_listed(
    name: str, status: dict[str, Any], local_status: dict[str, Any], report: CheckReport
) -> None:
    """Warn if the peer does not list this node, or reports errors with it."""
    fingerprint = local_status.get("fingerprint")
    if "fingerprint" not in status or status["fingerprint"] == fingerprint:
        return
    listed = [each for each in status.get("peers", []) if each["fingerprint"] == fingerprint]
    if listed:
        if listed[0]["last_error"]:
            message = f"it cannot send to this node: {listed[0]['last_error']}"
            report.warn(name, "peer_reports_error", message, "see its log")
        return
    down = [f"{each['host']}:{each['port']}" for each in status.get("peers", []) if each["state"] == "down"]
    also = f"; it cannot reach {', '.join(down)}" if down else ""
    report.warn(
        name,
        "not_listed_by_peer",
        f"it does not list this node{also}: messages published there do not reach this node",
        "add this node's admin server to `cluster` in its configuration, and restart it",
    )
