"""Signals that a terminal or a scheduler sends to a whole group of processes, of which only the first should react."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_held() -> Iterator[None]:
    """Within the block this process receives none of them until its end, and processes started in it never do.

    Those inherit the blocked signals from their first moment on; a handler would come too late while one starts up.
    """
    resource_tracker.ensure_running()  # else multiprocessing would start it in the block, and unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
