"""The jobs that save and restore named snapshots, which take longer than a request may: one at a time, with a journal.

Whoever does a job holds a lock for as long. A server takes it, writes the job down and hands the open lock to the
process that does the job (`serving.collection.commands.snapshot`), so that no other can begin in between. The system
frees the lock of a process that dies, and a job that is recorded as running while nobody holds the lock has failed.
"""

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from core.files import locks
from core.files.durable import publish_file
from core.files.permissions import make_folder
from serving.collection.errors import SnapshotError
from serving.collection.snapshots.named import FOLDER

What = Literal["save", "restore"]
State = Literal["running", "done", "failed"]
_LOG = logging.getLogger(__name__)
_KEPT = 20
_PATIENCE = 10.0  # seconds until a lock without a job on record counts as one
_POLL_SECONDS = 0.02


class JobUnderWay(SnapshotError):
    """Another snapshot is being saved or restored."""


@dataclass(frozen=True)
class Job:
    """`started` and `finished` are in milliseconds since 1970; `error` names no path."""

    id: str
    what: What
    name: str
    state: State
    started: int
    finished: int | None = None
    items: int | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As the journal and the API have it."""
        return asdict(self)


class Jobs:
    """The jobs of the collection in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._journal = self._folder / ".jobs.json"
        self._lock = self._folder / ".lock"

    def listed(self) -> list[Job]:
        """The last ones, newest first."""
        jobs = self._read()
        running = any(job.state == "running" for job in jobs) and self._under_way()
        # read once more: a job that ended after the first reading, and before the lock was tried, has not failed
        return jobs if running else _all_ended(self._read())

    @contextmanager
    def alone(self) -> Iterator[int]:
        """Inside, nobody else has a job. Yields the lock's file descriptor; a process that inherits it keeps the lock.

        Raises `JobUnderWay`.
        """
        make_folder(self._folder)
        handle = locks.open_lock_file(self._lock)
        try:
            self._take(handle)
            yield handle
        finally:
            os.close(handle)  # no unlocking: whoever inherited it goes on

    def begin(self, what: What, name: str) -> Job:
        """Record that it runs; only for whoever is `alone`."""
        job = Job(secrets.token_hex(6), what, name, "running", _now())
        self._write([job, *_all_ended(self._read())])
        return job

    def begun(self, number: str) -> Job:
        """The job of this number."""
        found = next((job for job in self._read() if job.id == number), None)
        if found is None:
            raise SnapshotError(f"there is no job {number[:80]!r} on record")
        return found

    def end(self, number: str, *, items: int | None = None, error: str | None = None) -> None:
        """Record how it went; only for whoever is `alone`."""
        state: State = "done" if error is None else "failed"
        self._write(
            [
                replace(job, state=state, finished=_now(), items=items, error=error) if job.id == number else job
                for job in self._read()
            ]
        )

    def _read(self) -> list[Job]:
        try:
            return msgspec.json.decode(self._journal.read_bytes(), type=list[Job])
        except FileNotFoundError:
            return []
        except (ValueError, RecursionError) as error:
            _LOG.warning("%s can't be read, and is begun anew with the next job: %s", self._journal, error)
            return []
        except OSError as error:
            raise SnapshotError(f"the journal of snapshots, {self._journal.name}, can't be read") from error

    def _write(self, jobs: list[Job]) -> None:
        publish_file(self._journal, lambda partial: partial.write_bytes(msgspec.json.encode(jobs[:_KEPT])))

    def _take(self, handle: int) -> None:
        """Take the lock; waits for a job that is done and whose process is about to end."""
        deadline = time.monotonic() + _PATIENCE
        while not locks.take(handle, wait=False):
            if any(job.state == "running" for job in self._read()) or time.monotonic() > deadline:
                raise JobUnderWay("a snapshot is being saved or restored: one at a time; `snapshots` says which")
            time.sleep(_POLL_SECONDS)

    def _under_way(self) -> bool:
        try:
            with locks.locked(self._lock, shared=True, wait=False) as lock:
                return lock is None
        except OSError:  # no lock file, and none can be made here
            return False


def _all_ended(jobs: list[Job]) -> list[Job]:
    """The jobs, those that are recorded as running as failed: their processes have died."""
    lost = "it was stopped before it was done, and nothing of it was kept"
    return [replace(job, state="failed", error=lost) if job.state == "running" else job for job in jobs]


def _now() -> int:
    return time.time_ns() // 1_000_000
