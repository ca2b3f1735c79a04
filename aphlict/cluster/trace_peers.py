"""Traces of the other nodes: a request to each, at the same time, on connections of their own."""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus

from msgspec import MsgspecError
from msgspec.json import decode

from aphlict.cluster.peer import Peer, PeerState
from aphlict.core.trace_report import NodeReport, TraceAnswer, TraceQuery
from aphlict.errors import BadResponse, PeerError, PeerHTTPError

TRACE_TIMEOUT = 2.5  # seconds for a peer; its own processes have less
# Responses of a server that cannot trace: an older one, or a Node.js server.
UNSUPPORTED = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})


async def trace_peers(peers: Sequence[Peer], query: TraceQuery, fingerprint: str) -> list[NodeReport]:
    """Return what each peer reports, and which ones do not respond. `fingerprint`: that of this node, which may be
    one of its own peers."""
    others = [peer for peer in peers if peer.state is not PeerState.SELF]
    nodes = await asyncio.gather(*(_trace(peer, query) for peer in others))
    return [node for node in nodes if node.fingerprint != fingerprint]


async def _trace(peer: Peer, query: TraceQuery) -> NodeReport:
    try:
        node = await asyncio.wait_for(_request(peer, query), TRACE_TIMEOUT)
    except (PeerError, asyncio.TimeoutError) as error:
        is_old = isinstance(error, PeerHTTPError) and error.status in UNSUPPORTED
        node = NodeReport(
            code="node_without_trace" if is_old else "node_unreachable",
            fingerprint=peer.fingerprint or "",
            error=str(error) or f"it did not respond within {TRACE_TIMEOUT:g} s",
            error_code=error.code if isinstance(error, PeerError) else "peer_timeout",
        )
    node.address = str(peer.address)
    node.queued = bool(query.unique_id) and peer.has_queued(query.unique_id)
    return node


async def _request(peer: Peer, query: TraceQuery) -> NodeReport:
    try:
        [node] = decode(await peer.get(query.target()), type=TraceAnswer).nodes
    except (MsgspecError, ValueError) as error:
        raise BadResponse("its trace is not that of a node") from error
    return node
