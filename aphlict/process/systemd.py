"""Telling systemd how it goes (sd_notify(3)), where it asked to be told."""

import logging
import socket
import time

log = logging.getLogger(__name__)

READY = "READY=1"
STOPPING = "STOPPING=1"


class Systemd:
    """The socket that systemd named in NOTIFY_SOCKET, or nothing."""

    def __init__(self, address: str | None) -> None:
        """Tell this address; a leading @ is an abstract one."""
        self._address = "\0" + address[1:] if address and address.startswith("@") else address

    def tell(self, state: str) -> None:
        """Send one state."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(state.encode(), self._address)
        except OSError as error:
            log.warning("systemd could not be told %s: %s", state.split("\n", maxsplit=1)[0], error.strerror)

    def tell_reloading(self) -> None:
        """Say that the configuration is being read again; READY has to follow."""
        self.tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
