"""From a publish to a browser: whether the message arrives, in which instance, and how soon."""

import secrets
import time
from dataclasses import dataclass
from typing import Any

from aphlict.doctor.asking import AdminServer
from aphlict.doctor.browser import Browser
from aphlict.doctor.findings import CheckList, Trouble
from aphlict.doctor.hops import ANY_LONGER, LONGER, Hop
from aphlict.doctor.target import Target
from aphlict.doctor.upgrading import SHOW_ONE
from aphlict.protocol.http import DEFAULT_INSTANCE, instance_path

PATIENCE = 3.0  # seconds for an answer or a message
SLOW = 0.5  # seconds from publish to receive that deserve a remark


@dataclass(frozen=True)
class Visit:
    """A browser that is connected, and the admin server that it should get its messages from."""

    browser: Browser
    target: Target
    admin: AdminServer

    def check_delivery(self, checks: CheckList) -> None:
        """Subscribe, publish, receive. Raises Trouble."""
        channel = f"aphlict-doctor-{secrets.token_hex(8)}"
        with checks.check("commands") as note:
            self._subscribe(channel)
            note.says = "a subscription is answered"
        with checks.check("delivery") as note:
            seconds = self._deliver(channel)
            note.says = (
                f"published to instance '{self.target.instance}', received {1000 * seconds:.0f} ms later"
            )
        if seconds > SLOW:
            checks.doubt(
                "delivery",
                f"a message took {seconds:.1f} s",
                "look at the load of this machine and of the proxy",
            )

    def _subscribe(self, channel: str) -> None:
        try:
            answer = self.browser.command("subscribe", [channel], PATIENCE)
        except OSError as error:
            raise Trouble(
                f"the upgrade was answered, but a command after it was not ({error}): frames do not get through",
                "look for a proxy, filter or virus scanner between here and there that reads what passes",
            ) from error
        if answer.get("type") != "ack":
            change = SHOW_ONE if "token" in str(answer.get("error")) else "see the server's log"
            raise Trouble(f"the server refused a subscription: {answer.get('error')}", change)

    def _deliver(self, channel: str) -> float:
        start = time.monotonic()
        matched = publish(self.admin, self.target.instance, channel)
        try:
            self.browser.receive(lambda message: channel in message.get("subscribers", ()), PATIENCE)
        except OSError as error:
            raise self._undelivered(channel, matched) from error
        return time.monotonic() - start

    def _undelivered(self, channel: str, matched: int) -> Trouble:
        wanted = self.target.instance
        if matched:
            return Trouble(
                f"the server sent a message that did not arrive within {PATIENCE:g} s",
                "look for a proxy between here and there that holds frames back",
            )
        if wanted != DEFAULT_INSTANCE and publish(self.admin, DEFAULT_INSTANCE, channel):
            return Trouble(
                f"the URL names the instance '{wanted}', but the connection arrives in '{DEFAULT_INSTANCE}': "
                f"a proxy takes '{instance_path(wanted)}' out of the path",
                "pass the whole path on (nginx: `proxy_pass http://aphlict;` without a path after the name)",
            )
        return Trouble(
            "a message that this node took has no receiver here: the URL leads to another server, "
            "or to an instance of another name",
            "correct where the proxy passes the path to; where the nodes form a cluster, see the peers below",
        )

    def check_idle(self, checks: CheckList, seconds: float, ping_interval: float, hop: Hop) -> None:
        """Be silent for so long, and see whether the connection bears it. Raises Trouble."""
        with checks.check("idle") as note:
            lasted = self.browser.stay(seconds)
            if lasted < seconds:
                raise self._cut(lasted, ping_interval, hop)
            pings = self.browser.pings
            note.says = (
                f"a silent connection lives after {seconds:g} s ({pings} ping{'s' * (pings != 1)} answered)"
            )

    def _cut(self, lasted: float, ping_interval: float, hop: Hop) -> Trouble:
        if self.browser.close_frame is not None:
            code, reason = self.browser.close_frame
            return Trouble(
                f"the server closed a silent connection after {lasted:.0f} s ({code} {reason})".rstrip(),
                "see the server's log for the reason",
            )
        return Trouble(
            f"a connection that was silent was cut off after {lasted:.1f} s, and not by Aphlict, "
            f"which pings every {ping_interval:g} s: the idle time-out of a proxy is shorter",
            f"{LONGER.get(hop, ANY_LONGER)}, or set ping.interval to less than {lasted:.0f} s",
        )


def publish(admin: AdminServer, instance: str, channel: str) -> int:
    """Publish to a channel of our own; how many connections of that node it goes to. Raises Trouble."""
    message: dict[str, Any] = {"type": "doctor", "subscribers": [channel]}
    try:
        answer = admin.publish(instance, message)
    except OSError as error:
        raise Trouble(f"{admin.url} took no message: {error}", "see the server's log") from error
    if answer.status != 200 or not isinstance(answer.json, dict):
        raise Trouble(
            f"{admin.url} refused a message: {answer.status} {answer.error}", "see the server's log"
        )
    return int(answer.json.get("matched", 0))
