"""Child processes that end when their parent does, however it dies."""

import ctypes
import signal
import threading
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def end_with_parent() -> Callable[[], None] | None:
    """What a child calls before it runs (`preexec_fn`), so that the kernel ends it with the thread that starts it.

    None in any other thread than the main one, which might end before the process does.
    """
    return _end_with_parent if threading.current_thread() is threading.main_thread() else None


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
