"""Signals that a terminal or a scheduler sends to a whole group of processes, of which only the first is to react."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_held() -> Iterator[None]:
    """This process gets these signals after the block, and processes that are started in it never get them.

    They inherit what is blocked, from their first moment on: a handler would come too late for one that starts up.
    """
    resource_tracker.ensure_running()  # multiprocessing would start it in the block, and unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
