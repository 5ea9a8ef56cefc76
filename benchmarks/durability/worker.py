"""A process that `benchmarks.durability.durability` kills and starts again, and all that it ever said.

What it said is read by a thread as it comes, so that it never waits for its listener.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.tools.child import ROOT, ChildError

CHILD = (sys.executable, "-m", "benchmarks.durability.child")
_PATIENCE = 60.0  # seconds until a worker that does not get to a stage counts as stuck


@dataclass
class Heard:
    """Numbers of the batches (or compactions) that were begun and, so it was acknowledged, done."""

    storing: set[int] = field(default_factory=set)
    stored: set[int] = field(default_factory=set)
    deleting: set[int] = field(default_factory=set)
    deleted: set[int] = field(default_factory=set)
    compacting: set[int] = field(default_factory=set)
    compacted: set[int] = field(default_factory=set)

    @property
    def acknowledged(self) -> int:
        """How many writes were acknowledged."""
        return len(self.stored) + len(self.deleted)


class Account:
    """What one worker said, noted by one thread and read by another."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._heard = Heard()
        self._changed = threading.Condition()

    def tell(self, word: str, number: int) -> None:
        """The worker says this now."""
        with self._changed:
            getattr(self._heard, word).add(number)
            self._changed.notify_all()

    def wake(self) -> None:
        """Let who waits look whether the worker still lives."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, stage: str, alive: Callable[[], bool]) -> None:
        """Until it says that it begins this the next time. Raises `ChildError` if it ends, or is stuck."""
        begun: set[int] = getattr(self._heard, stage)
        with self._changed:
            before = len(begun)
            reached = self._changed.wait_for(lambda: len(begun) > before or not alive(), _PATIENCE)
        if not reached or len(begun) == before:
            raise ChildError(f"worker {self.name} ended or is stuck before {stage}; it says why above")

    def heard(self) -> Heard:
        """What it has said by now."""
        with self._changed:
            return replace(self._heard, **{name: set(value) for name, value in vars(self._heard).items()})


class Worker:
    """One process after another of the same role and name; `more` are the child's last arguments."""

    def __init__(self, role: str, folder: Path, name: str, *more: str) -> None:
        self.role = role
        self.name = name
        self.heard = (account := Account(name)).heard
        self._account = account
        self._folder = folder
        self._more = more
        self.start()

    def start(self) -> None:
        """Go on behind what was begun last."""
        heard = self.heard()
        first = max(heard.storing | heard.compacting, default=-1) + 1
        command = [*CHILD, self.role, str(self._folder), self.name, str(first), *self._more]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def wait_for(self, stage: str) -> None:
        """Until it says that it begins this the next time. Raises `ChildError` if it ends, or is stuck."""
        self._account.wait_for(stage, self._listener.is_alive)

    def kill(self) -> None:
        """SIGKILL; afterwards everything that it said has been heard."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):  # else the kill came in the middle of it
                self._account.tell(*json.loads(line))
        self._account.wake()
