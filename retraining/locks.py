"""One retraining at a time: of a name in a store, and of a collection.

The locks go with the processes that hold them, a stage's among them: after a kill they are free once the stage that
was running has ended.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from retraining.plan import Plan, PlanError

FILE_NAME = "retrain.lock"
_PATIENCE = 20.0  # seconds: a stage that lost its parent saves before it ends
_POLL = 0.2


class Busy(PlanError):
    """Another retraining is at work."""


@contextlib.contextmanager
def alone(plan: Plan) -> Iterator[Sequence[int]]:
    """Hold both locks; the file descriptors that the stages are to inherit. Raises `Busy`."""
    folders = [plan.releases.home]
    if plan.collection and (plan.images or Path(plan.collection).is_dir()):  # else it is none, and the plan is refused
        folders.append(Path(plan.collection))
    with contextlib.ExitStack() as held:
        handles = []
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            handles.append(held.enter_context(_locked(folder / FILE_NAME)))
        yield handles


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + _PATIENCE
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy(f"another retraining is at work: it holds {path}; wait until it has ended") from None
                time.sleep(_POLL)
        yield handle
    finally:
        os.close(handle)
