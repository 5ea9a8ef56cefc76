"""One retraining at a time, of a name in a store and of a collection.

The locks go with the processes that hold them, which include a stage's: after a kill they are free once the stage that
was running has ended.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from core.files.locks import locked
from retraining.errors import Busy
from retraining.plan import Plan

FILE_NAME = "retrain.lock"
_PATIENCE = 20.0  # seconds: a stage that lost its parent saves before it ends


@contextmanager
def alone(plan: Plan) -> Iterator[Sequence[int]]:
    """Hold both locks; yields the file descriptors that the stages are to inherit. Raises `Busy`."""
    folders = [plan.releases.home]
    if plan.collection and (plan.images or Path(plan.collection).is_dir()):  # else there is none, and settling says so
        folders.append(Path(plan.collection))
    with ExitStack() as held:
        handles = []
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / FILE_NAME
            handle = held.enter_context(locked(path, wait=_PATIENCE))
            if handle is None:
                raise Busy(f"another retraining is at work and holds {path}; wait until it has ended")
            handles.append(handle)
        yield handles
