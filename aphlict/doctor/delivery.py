"""From a published message to a subscriber: whether it arrives, in which instance, and how soon."""

import secrets
import time
from dataclasses import dataclass
from typing import Any

from aphlict.doctor.admin_client import AdminClient
from aphlict.doctor.proxies import RAISE_TIMEOUT, RAISE_TIMEOUT_ANYWHERE, Hop
from aphlict.doctor.report import CheckFailed, CheckReport
from aphlict.doctor.target import Target
from aphlict.doctor.upgrade import HOW_TO_AUTHENTICATE, TOKEN_CODES, WebSocketProbe
from aphlict.errors import ChannelForbidden, CommandError, InstanceForbidden, PublishFailed
from aphlict.protocol.http import DEFAULT_INSTANCE, instance_path

RECEIVE_TIMEOUT_SECONDS = 3.0  # for a response or a message
SLOW_SECONDS = 0.5  # from publish to receive; more is a warning
SEE_LOG = "see the server's log"


def new_channel() -> str:
    """Return a channel that nothing else uses."""
    return f"aphlict-doctor-{secrets.token_hex(8)}"


@dataclass(frozen=True)
class DeliveryCheck:
    """An open session, and the admin server whose messages it should receive."""

    session: WebSocketProbe
    target: Target
    admin: AdminClient

    def check_delivery(self, report: CheckReport) -> None:
        """Subscribe, publish and receive. Raises CheckFailed."""
        channel = new_channel()
        with report.check("commands") as passed:
            self._subscribe(channel)
            passed.message = "a subscription was acknowledged"
        with report.check("delivery") as passed:
            seconds = self._deliver(channel)
            passed.message = (
                f"published to instance '{self.target.instance}', received after {1000 * seconds:.0f} ms"
            )
        if seconds > SLOW_SECONDS:
            remedy = "check the load of this machine and of the proxy"
            report.warn("delivery", "delivery_slow", f"a message took {seconds:.1f} s", remedy)

    def _subscribe(self, channel: str) -> None:
        try:
            response = self.session.command("subscribe", [channel], RECEIVE_TIMEOUT_SECONDS)
        except OSError as error:
            raise CheckFailed(
                "frames_blocked",
                f"the handshake succeeded, but there was no response to a command ({error}): frames are blocked",
                "look for a proxy, filter or virus scanner in between that inspects the traffic",
            ) from error
        if response.get("type") != "ack":
            code = str(response.get("code", CommandError.code))
            needs_token = code in TOKEN_CODES | {ChannelForbidden.code, InstanceForbidden.code}
            raise CheckFailed(
                code,
                f"the server rejected a subscription: {response.get('error')}",
                HOW_TO_AUTHENTICATE if needs_token else SEE_LOG,
            )

    def _deliver(self, channel: str) -> float:
        start = time.monotonic()
        matched = publish(self.admin, self.target.instance, channel)
        try:
            self.session.receive(
                lambda message: channel in message.get("subscribers", ()), RECEIVE_TIMEOUT_SECONDS
            )
        except OSError as error:
            raise self._undelivered(channel, matched) from error
        return time.monotonic() - start

    def _undelivered(self, channel: str, matched: int) -> CheckFailed:
        instance = self.target.instance
        if matched:
            return CheckFailed(
                "message_lost",
                f"the server sent a message that did not arrive within {RECEIVE_TIMEOUT_SECONDS:g} s",
                "look for a proxy in between that buffers frames",
            )
        if instance != DEFAULT_INSTANCE and publish(self.admin, DEFAULT_INSTANCE, channel):
            return CheckFailed(
                "instance_dropped",
                f"the URL contains the instance '{instance}', but the client is in '{DEFAULT_INSTANCE}': "
                f"a proxy removes '{instance_path(instance)}' from the path",
                "forward the whole path (nginx: `proxy_pass http://aphlict;` without a path after the name)",
            )
        return CheckFailed(
            "wrong_server",
            "a message that was published to this node has no subscriber here: the URL leads to another server, "
            "or to an instance with another name",
            "correct the address to which the proxy forwards the path; in a cluster, see the peers below",
        )

    def check_idle(self, report: CheckReport, seconds: float, ping_interval: float, hop: Hop) -> None:
        """Check whether a connection survives `seconds` without messages. Raises CheckFailed."""
        with report.check("idle") as passed:
            lasted = self.session.stay_idle(seconds)
            if lasted < seconds:
                raise self._closed_early(lasted, ping_interval, hop)
            pings = self.session.pings
            passed.message = (
                f"an idle connection is open after {seconds:g} s ({pings} ping{'s' * (pings != 1)} answered)"
            )

    def _closed_early(self, lasted: float, ping_interval: float, hop: Hop) -> CheckFailed:
        if self.session.close_frame is not None:
            return CheckFailed(
                "closed_by_server",
                f"the server closed an idle connection after {lasted:.0f} s ({self.session.close_frame})",
                "see the server's log for the reason",
            )
        return CheckFailed(
            "idle_timeout",
            f"an idle connection was closed after {lasted:.1f} s, and not by Aphlict, which sends a ping every "
            f"{ping_interval:g} s: the idle timeout of a proxy is shorter",
            f"{RAISE_TIMEOUT.get(hop, RAISE_TIMEOUT_ANYWHERE)}, or set ping.interval to less than {lasted:.0f} s",
        )


def publish(admin: AdminClient, instance: str, channel: str) -> int:
    """Publish a test message, and return how many connections of that node receive it. Raises CheckFailed."""
    message: dict[str, Any] = {"type": "doctor", "subscribers": [channel]}
    try:
        response = admin.publish(instance, message)
    except OSError as error:
        reason = f"{admin.url} did not accept a message: {error}"
        raise CheckFailed(PublishFailed.code, reason, SEE_LOG) from error
    if response.status != 200 or not isinstance(response.json, dict):
        reason = f"{admin.url} rejected a message: {response.status} {response.error}"
        raise CheckFailed(response.code or PublishFailed.code, reason, SEE_LOG)
    return int(response.json.get("matched", 0))
