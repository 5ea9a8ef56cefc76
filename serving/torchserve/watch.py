"""Watch a running TorchServe: nothing is registered that its launcher did not, and every worker is there and works.

What nobody should have changed is put right; the rest is only said, as TorchServe itself ends a worker that has not
answered for two minutes. A worker hangs if its batch takes too long, or if the others are given batches and it is not.
"""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serving.torchserve.busy import Batches, batches_of
from serving.torchserve.management import Management, ManagementError, Registered, Worker

LOOK_SECONDS = 5.0  # seldom: with a GPU, TorchServe runs nvidia-smi for every worker that it reports
HANG_SECONDS = 30.0
_STARTING_SECONDS = 90.0
_TURNS = 20  # TorchServe's workers wait in a line: while others get this many batches, each gets one
_LOG = logging.getLogger(__name__)


@dataclass
class _Seen:
    """When a worker was last seen to go on, and how many batches all of them had begun then."""

    count: int
    moment: float
    total: int


class Watch:
    """Looks every few seconds, from `start` to `stop`, and logs what is wrong, and that it is right again."""

    def __init__(self, management: Management, folder: Path, *, workers: int) -> None:
        """`folder` has the workers' files (`serving.torchserve.busy`)."""
        self.troubles: frozenset[str] = frozenset()
        self._management = management
        self._folder = folder
        self._workers = workers
        self._seen: dict[int, _Seen] = {}
        self._unready: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def cancel(self) -> None:
        """Say nothing more: TorchServe is being ended."""
        self._ended.set()

    def stop(self) -> None:
        """Look no more; call it once TorchServe has ended."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look(self) -> frozenset[str]:
        """Everything that is wrong now, in sentences."""
        versions = self._management.versions()
        found = [*self._foreign(versions), *self._missing(versions)]
        for registered in versions.values():
            found += self._hanging(registered)
        return frozenset(found)

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            try:
                found = self.look()
            except ManagementError as error:
                found = frozenset([f"TorchServe's management does not answer: {error}"])
            except OSError as error:
                found = frozenset([f"the server can't be watched: {error}"])
            if self._ended.is_set():
                return
            for trouble in sorted(found - self.troubles):
                _LOG.error("%s", trouble)
            for trouble in sorted(self.troubles - found):
                _LOG.info("no longer so: %s", trouble)
            self.troubles = found

    def _foreign(self, versions: dict[int, Registered]) -> Iterator[str]:
        """Models of other names, and versions that were not loaded from the server's own folder; they are ended."""
        for name in self._management.names() - {self._management.model}:
            yield f"somebody registered the model {name!r}: it is ended"
            self._management.unregister_model(name)
        for version, registered in versions.items():
            if "/" in registered.url:  # ours are named as they are in the model folder
                yield f"somebody registered version {version} from {registered.url}: it is ended"
                self._management.unregister(version)

    def _missing(self, versions: dict[int, Registered]) -> Iterator[str]:
        """The workers of the version that serves, which a rollover never changes."""
        serving = self._management.default()
        if serving in versions and versions[serving].workers != self._workers:
            wanted = versions[serving].workers
            yield f"somebody asked for {wanted} workers of version {serving}: it gets its {self._workers} back"
            self._management.scale(serving, self._workers)
        now = time.monotonic()
        ids = {worker.id: worker for one in versions.values() for worker in one.all if worker.status != "READY"}
        self._unready = {name: self._unready.get(name, now) for name in ids}
        for name, since in self._unready.items():
            if now - since > _STARTING_SECONDS:
                yield f"worker {name} (process {ids[name].pid}) does not start: TorchServe calls it {ids[name].status}"

    def _hanging(self, registered: Registered) -> Iterator[str]:
        said = [(worker, batches_of(self._folder, worker.pid)) for worker in registered.all if worker.pid > 0]
        known = [(worker, batches) for worker, batches in said if batches is not None]
        total = sum(batches.count for _, batches in known)
        for worker, batches in known:
            if trouble := self._trouble_of(worker, batches, total):
                yield trouble

    def _trouble_of(self, worker: Worker, batches: Batches, total: int) -> str | None:
        now = time.monotonic()
        seen = self._seen.get(worker.pid)
        if seen is None or seen.count != batches.count:
            seen = self._seen[worker.pid] = _Seen(batches.count, now, total)
        if now - seen.moment < HANG_SECONDS:
            return None
        if batches.busy:
            return f"worker {worker.id} (process {worker.pid}) hangs: it has not finished its batch"
        if total - seen.total >= _TURNS:
            return f"worker {worker.id} (process {worker.pid}) hangs: the others are given batches, and it takes none"
        return None
