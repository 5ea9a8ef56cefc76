"""Snapshots by name, saved and restored while the server answers: begun here, done by a process of their own.

A request only begins one: that of a large collection takes longer than TorchServe waits for a worker, and a worker that
waited would answer nobody else. `snapshots` says what became of it. The files stay on the server's disk.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import serving
from serving.collection.errors import CatalogueReadOnly, SnapshotError, failed_to_write
from serving.collection.snapshots.jobs import Job, Jobs, JobUnderWay, What
from serving.collection.snapshots.named import MOST, NamedSnapshots, check_name, room_lacking
from serving.operations.exchange import Exchange
from serving.operations.failures import failure_of
from serving.operations.opened import OpenCollection
from serving.protocol.messages import RequestError
from serving.protocol.operations import RemoveSnapshotRequest, RestoreRequest, SnapshotRequest, SnapshotsRequest

_CODE = Path(serving.__file__).parents[1]
_GROWTH = 2  # a restored snapshot is in the log and in the catalogue for a while


def list_snapshots(collection: OpenCollection, one: Exchange[SnapshotsRequest]) -> dict[str, Any]:
    """The saved snapshots, and the latest jobs with their state, newest first."""
    folder = collection.catalogue.folder
    kept = [{**vars(snapshot)} for snapshot in NamedSnapshots(folder).listed()]
    for snapshot in kept:
        del snapshot["file"]
    return {"snapshots": kept, "jobs": [job.to_json() for job in Jobs(folder).listed()]}


def save(collection: OpenCollection, one: Exchange[SnapshotRequest]) -> dict[str, Any]:
    """Begin to save a snapshot; returns the job."""
    name, snapshots = _checked(one.request.name), NamedSnapshots(collection.catalogue.folder)
    if name not in (names := snapshots.names()) and len(names) >= MOST:
        raise RequestError(f"there are {MOST} snapshots already: remove some, or save in place of one", 409)
    _check_room(collection, collection.catalogue.snapshots.bytes_needed(), f"snapshot {name!r}")
    return {"job": _begin(collection, "save", name).to_json()}


def restore(collection: OpenCollection, one: Exchange[RestoreRequest]) -> dict[str, Any]:
    """Begin to replace everything in the collection by a snapshot; returns the job."""
    name = _checked(one.request.name)
    kept = NamedSnapshots(collection.catalogue.folder).find(name)
    if kept is None:
        raise RequestError(f"there is no snapshot {name!r}", 404)
    if (count := collection.catalogue.items.count()) and not one.request.replace:
        raise RequestError(f"the collection has {count} items; replace=true gives them up", 409)
    _check_room(collection, _GROWTH * kept.bytes, f"restoring {name!r}")
    return {"job": _begin(collection, "restore", name, *(["--replace"] if one.request.replace else [])).to_json()}


def remove(collection: OpenCollection, one: Exchange[RemoveSnapshotRequest]) -> dict[str, Any]:
    """Remove a snapshot and its file, at once."""
    name, folder = _checked(one.request.name), collection.catalogue.folder
    snapshots = NamedSnapshots(folder)
    if name not in snapshots.names():
        raise RequestError(f"there is no snapshot {name!r}", 404)
    try:
        with Jobs(folder).alone():
            snapshots.remove(name)
    except JobUnderWay as error:
        raise RequestError(str(error), 409) from error
    except OSError as error:
        raise failure_of(failed_to_write(error, "the snapshot could not be removed")) from error
    return {"removed": name}


def _checked(name: str) -> str:
    try:
        check_name(name)
    except SnapshotError as error:
        raise RequestError(str(error)) from error
    return name


def _check_room(collection: OpenCollection, needed: int, what: str) -> None:
    if not os.access(collection.catalogue.folder, os.W_OK, effective_ids=True):
        raise failure_of(CatalogueReadOnly(f"{what}: {collection.catalogue.folder} is not writable here"))
    if lacking := room_lacking(collection.catalogue.folder, needed):
        raise RequestError(f"the collection's disk has {lacking >> 20} MiB too little room for {what}", 507)


def _begin(collection: OpenCollection, what: What, name: str, *more: str) -> Job:
    folder = collection.catalogue.folder
    jobs = Jobs(folder)
    try:
        with jobs.alone() as lock:
            job = jobs.begin(what, name)
            _start([what, "--collection", str(folder), "--name", name, "--job", job.id, *more], lock)
            return job
    except JobUnderWay as error:
        raise RequestError(str(error), 409) from error
    except SnapshotError as error:
        raise failure_of(error) from error
    except OSError as error:
        raise failure_of(failed_to_write(error, "the job could not be begun")) from error


def _start(arguments: list[str], lock: int) -> None:
    """In another process, which holds the lock until it ends, and outlives this one."""
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.collection.commands.snapshot", *arguments],
        env={**os.environ, "PYTHONPATH": str(_CODE)},
        stdin=subprocess.DEVNULL,
        pass_fds=(lock,),
    )
    threading.Thread(target=process.wait, name="snapshot", daemon=True).start()  # so that no dead process is left
