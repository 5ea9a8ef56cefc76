"""A stage's process: started so that it makes way for a server, stopped with us, and its cost measured.

It is in a session of its own, so that a Ctrl-C reaches us alone; it gets SIGTERM when we are stopped, and from the
kernel when we are killed. It inherits the locks, which are so held until the last stage has really ended.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import psutil

from core.machine.interrupts import Interrupted

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_NICEST = 19
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class ProcessEnd:
    """How a process ended: its code, its seconds, and the most memory that it or any child of it had, in bytes."""

    code: int
    seconds: float
    peak_bytes: int


def run_stage(command: Sequence[str], *, polite: bool, locks: Sequence[int]) -> ProcessEnd:
    """Run a command to its end; raises `Interrupted` after a signal, once the command has ended.

    `polite` gives it the least priority; `locks` are file descriptors that it inherits.
    """
    start = time.monotonic()
    prepare = [sys.executable, "-m", "retraining.child", str(os.getpid()), str(int(polite))]
    with _Forwarded() as forwarded:
        process = subprocess.Popen([*prepare, *command], start_new_session=True, pass_fds=locks)
        forwarded.to(process)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if forwarded.received is not None:
        raise Interrupted(forwarded.received)
    return ProcessEnd(process.returncode, time.monotonic() - start, usage.ru_maxrss * 1024)


def become(parent: int, command: Sequence[str], *, polite: bool) -> NoReturn:
    """In the new process: what is to hold for the stage, and then the stage itself in our place."""
    end_with(parent)
    if polite:
        make_way()
    os.execvp(command[0], [*command])


def end_with(parent: int) -> None:
    """Get SIGTERM when the parent dies."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(128 + signal.SIGTERM)


def make_way() -> None:
    """The least priority for the processor and the disk, also beside sessions of other users.

    Where processes are scheduled by session, niceness counts only within one, so the session needs a priority too. That
    of a session we did not start would outlive us, and slow down everything else in somebody's terminal.
    """
    os.nice(_NICEST)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:
            file.write(str(_NICEST))
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)


def heeded() -> list[signal.Signals]:
    """The signals that stop us: not those which whoever started us has us ignore (`nohup`)."""
    return [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


class _Forwarded:
    """Within the block, signals that would stop us go to the stage as SIGTERM; the first is kept."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def to(self, process: "subprocess.Popen[bytes]") -> None:
        """Pass signals on to this process, at once if one came while it was started."""
        self._process = process
        if self.received is not None:
            process.send_signal(signal.SIGTERM)

    def __enter__(self) -> "_Forwarded":
        self._before = {number: signal.signal(number, self._receive) for number in heeded()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[3:], polite=sys.argv[2] == "1")
