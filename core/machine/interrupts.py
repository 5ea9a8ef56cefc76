"""Signals as a request to stop: so that a loop can finish its step and save, or that what runs is closed on exit."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_REQUEST = 1.0  # seconds: a scheduler signals every process, and torchrun passes on its own signal


class Interrupted(Exception):
    """A run was asked to stop, and has saved; `exit_code` is the shell's 128 + signal number."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(f"stopped by {received.name}")
        self.exit_code = 128 + received.value


class Waiting(Exception):
    """What was waited for did not come, and a signal had asked to stop meanwhile."""


class Interrupts:
    """Within the `with` block the first signal only sets `received`; one that comes a second later acts as usual."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._when = 0.0
        self._patience: float | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """For what may hang: raises `Waiting` within the block once a signal was received and so long has passed."""
        before = signal.signal(signal.SIGALRM, _stop_waiting)
        self._patience = seconds
        try:
            if self.received is not None:
                signal.setitimer(signal.ITIMER_REAL, seconds)
            yield
        finally:
            self._patience = None
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._when = signal.Signals(number), time.monotonic()
            if self._patience is not None:
                signal.setitimer(signal.ITIMER_REAL, self._patience)
        elif time.monotonic() - self._when > _ONE_REQUEST:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _stop_waiting(number: int, frame: FrameType | None) -> None:
    raise Waiting


def exit_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit for good, for scripts that are not a `core.command_line` command."""
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, lambda number, _: sys.exit(128 + number))
