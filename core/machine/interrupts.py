"""Signals as a request to stop: so that a loop can finish its step and save, or that what runs is closed on exit."""

import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_REQUEST = 1.0  # seconds: a scheduler signals every process, and torchrun passes on its own signal


class Interrupted(Exception):
    """A run was asked to stop, and has saved; `exit_code` is the shell's 128 + signal number."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(f"stopped by {received.name}")
        self.exit_code = 128 + received.value


class Interrupts:
    """Within the `with` block the first signal only sets `received`; one that comes a second later acts as usual."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._when = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._when = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self._when > _ONE_REQUEST:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def exit_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit for good, for scripts that are not a `core.command_line` command."""
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, lambda number, _: sys.exit(128 + number))
