"""Ports of this machine."""

import socket

LOOPBACK = "127.0.0.1"


def free_port(wanted: int) -> int:
    """`wanted` if nothing listens there on loopback, else a free port."""
    with socket.socket() as handle:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            handle.bind((LOOPBACK, wanted))
        except OSError:
            handle.bind((LOOPBACK, 0))
        return int(handle.getsockname()[1])
