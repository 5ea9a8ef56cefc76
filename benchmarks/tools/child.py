"""A process of our own beside a benchmark, which talks in lines of JSON with raw bytes behind them.

So what is measured shares no interpreter, no thread pool and no imports with what measures. Servers, which are asked
over HTTP, are in `benchmarks.serving.servers`.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
SIMCLR = (sys.executable, "-m", "cli")  # a command as users type it
_STOP_SECONDS = 10.0


class ChildError(RuntimeError):
    """A process of a benchmark ended before it had answered."""


class Child:
    """`python -m MODULE`. A context manager: gone on exit, whatever it was doing."""

    def __init__(self, module: str) -> None:
        self.module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def tell(self, message: dict[str, Any], parts: Sequence[bytes] = ()) -> None:
        """Send a message, and byte strings of any length behind it."""
        line = json.dumps(message | {"parts": [len(part) for part in parts]})
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n" + b"".join(parts))
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def hear(self) -> dict[str, Any]:
        """Wait for its next message; raises `ChildError` if it ends without one."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """End the process: it sees the end of its input, and is killed if it does not stop by that."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it ended with a message unread
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        self.close()

    def _ended(self) -> ChildError:
        code = self._process.wait()
        return ChildError(f"python -m {self.module} ended with code {code} before it answered; it says why above")


def hear_parent() -> tuple[dict[str, Any], list[bytes]] | None:
    """In the child: the next message with its byte strings, None when there will be no more."""
    line = sys.stdin.buffer.readline()
    if not line:
        return None
    message: dict[str, Any] = json.loads(line)
    return message, [sys.stdin.buffer.read(length) for length in message.pop("parts")]


def tell_parent(message: dict[str, Any]) -> None:
    """In the child: send a message."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
