"""What systemd is told of a service that it started with `Type=notify`: a datagram to the socket in $NOTIFY_SOCKET.

Where there is no such socket nothing is told.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

READY, STOPPING, WATCHDOG = "READY=1", "STOPPING=1", "WATCHDOG=1"


def notify(state: str) -> None:
    """Tell it this state; that it can't be reached is no reason to stop serving."""
    if not (path := os.environ.get("NOTIFY_SOCKET")):
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path  # Linux's abstract sockets
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as handle:
        handle.settimeout(1.0)
        handle.sendto(state.encode(), address)


class Watchdog:
    """Tells it four times in `WatchdogSec` that we are well, if it wants to hear that."""

    def __init__(self) -> None:
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every = int(microseconds) / 4e6 if ours and microseconds.isdigit() else 0.0
        self._next = 0.0

    def tell(self, well: Callable[[], bool]) -> None:
        """To be called often: asks whether we are `well` when it is time, and tells it if so."""
        if self._every and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every
            if well():
                notify(WATCHDOG)
