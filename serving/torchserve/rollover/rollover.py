"""Put another release in the place of the one that serves, in a running TorchServe, without losing a request.

    check    the archive is of the release, the release verifies, its embedding space is complete
    switch   register -> warm -> caught up -> canaries -> set default
    retire   drain the old -> unregister it

Each first looks at what is there, so a rollover that was broken off anywhere is finished by running all three again.
If anything fails before the default is set, the old release goes on serving and the new one is unregistered.
`serving.torchserve.rollover.following` decides when.
"""

import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from core.releases.manifest import FILE_NAME, ManifestError, Release
from core.releases.model_store import ModelStore
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.errors import CollectionError
from serving.torchserve.busy import is_busy
from serving.torchserve.carried import renew
from serving.torchserve.management import Management, ManagementError, NoAnswer
from serving.torchserve.rollover.archives import check_archive, unpack
from serving.torchserve.rollover.canaries import CanaryError, try_release

_WARM_SECONDS = 120.0
_LOOK_SECONDS = 0.05
_ASK_SECONDS = 0.3  # seldom: with a GPU, TorchServe runs nvidia-smi for every worker that it reports
_FEW = 256  # items: a first search embeds them within seconds
_STALLED_SECONDS = 300.0
_DRAIN_SECONDS = 150.0  # longer than TorchServe lets any request take
# Neither sign shows a request on its way from the queue to the handler, or from the handler to the socket: TorchServe
# packs, sends and reads at most 64 MB. That takes well below a second even where the cores are busy.
_QUIET_SECONDS = 3.0
_GAVE_UP = "Load model failed"
_OF_WORKER = " MODEL_LOG - "
_LOG = logging.getLogger(__name__)


class RolloverError(RuntimeError):
    """Why the new release can't serve; the one before still does."""


class NotYet(RolloverError):
    """Why the new release can't serve yet: something that others work on is not finished."""


class Cancelled(RuntimeError):
    """The server is being stopped."""


@dataclass(frozen=True)
class Site:
    """A running server that follows a store: where it answers people (`url`) and us, and the files that are its own."""

    store: ModelStore
    management: Management
    inference: Path
    url: str
    models: Path  # the only folder that its TorchServe loads archives from
    busy: Path
    log: Path
    workers: int
    collection: Path | None = None


def check(site: Site, version: int) -> Release:
    """The release of a version, if it may be served; raises `RolloverError`, or `NotYet` if it may be soon."""
    try:
        if site.collection is not None:  # first, because it is cheap and asked again and again
            missing = space_ready(site.collection, site.store.release(version).space)
            if missing is not None:
                raise NotYet(missing)
        return check_archive(site.store, version)
    except (ManifestError, CollectionError, OSError) as error:
        raise (RolloverError if _is_here(site.store, version) else NotYet)(str(error)) from error


def switch(site: Site, release: Release, *, cancelled: Event) -> None:
    """Let a checked release answer every request that names no version; the others stay registered (`retire`).

    Raises `RolloverError` if it can't serve, `NotYet` if it may later, `Cancelled` once `cancelled` is set; the release
    that served before still does then.
    """
    version = release.manifest.version
    if site.management.default() == version:
        return
    try:
        _register(site, release, cancelled)
        _wait_until_caught_up(site, release, cancelled)
        _go_on(cancelled)
        try_release(site.inference, release, site.workers, search=site.collection is not None)
        _go_on(cancelled)
        site.management.set_default(version)
    except (ManagementError, ManifestError, CanaryError, CollectionError, RolloverError, OSError) as error:
        if cancelled.is_set():
            raise Cancelled from error  # TorchServe goes away under us
        if _is_default(site, version):
            return  # the default was set, and only the reply was lost
        _withdraw(site, version)
        raise (NotYet if isinstance(error, NoAnswer | NotYet) else RolloverError)(str(error)) from error


def retire(site: Site, kept: set[int], *, cancelled: Event) -> None:
    """Drain and unregister every version but those kept, which must include the default."""
    for version in site.management.versions().keys() - kept:
        _drain(site, version, cancelled)
        site.management.unregister(version)
        shutil.rmtree(_folder(site, version), ignore_errors=True)


def space_ready(collection: Path, space: str) -> str | None:
    """None if the collection is complete in this embedding space, else a sentence: what is missing, and the fix."""
    catalogue = open_catalogue(collection)
    try:
        known = {one.release: one for one in catalogue.spaces.all()}
        missing = known[space].pending if space in known else catalogue.items.count()
        complete = known[space].complete if space in known else missing == 0
    finally:
        catalogue.close()
    if complete:
        return None
    return (
        f"{missing} items of {collection} have no embedding by this release yet: "
        "run `simclr reembed`, or wait until it has finished"
    )


def _register(site: Site, release: Release, cancelled: Event) -> None:
    """Start the workers one by one: each takes a core while it loads, and the old release needs the others."""
    version = release.manifest.version
    start = site.log.stat().st_size
    found = site.management.versions().get(version)
    if found is None:
        folder = _folder(site, version)
        unpack(site.store.archive(version), release, folder)
        renew(folder)
        _go_on(cancelled)
        site.management.register(folder.name)
    for workers in range(max(1, found.workers if found else 0), site.workers + 1):
        site.management.scale(version, workers)
        _wait_until_warm(site, version, workers, start=start, cancelled=cancelled)


def _wait_until_warm(site: Site, version: int, workers: int, *, start: int, cancelled: Event) -> None:
    deadline = time.monotonic() + _WARM_SECONDS
    while (found := site.management.versions().get(version)) is None or found.ready < workers:
        logged = _logged(site.log, start)
        if found is None or _GAVE_UP in logged:
            raise RolloverError(f"{_folder(site, version).name} can't be loaded{_last_error(logged)}")
        if time.monotonic() > deadline:
            raise RolloverError(f"version {version} did not have {workers} workers ready after {_WARM_SECONDS:.0f} s")
        _go_on(cancelled, _ASK_SECONDS)


def _wait_until_caught_up(site: Site, release: Release, cancelled: Event) -> None:
    """Wait until its workers, which embed in the background, have left no more than a first search can embed.

    In a space that was complete long ago, or is written to faster than it was filled, a lot may wait.
    """
    if site.collection is None:
        return
    catalogue = open_catalogue(site.collection)
    try:
        least, deadline = None, 0.0
        while (waiting := catalogue.spaces.count_pending(release.space)) > _FEW:
            if least is None or waiting < least:
                least, deadline = waiting, time.monotonic() + _STALLED_SECONDS
            elif time.monotonic() > deadline:
                raise NotYet(
                    f"{waiting} items wait for an embedding by it, and their number does not fall: new ones come as "
                    "fast as they are embedded, or their pictures are out of reach"
                )
            _go_on(cancelled, _ASK_SECONDS)
    finally:
        catalogue.close()


def _drain(site: Site, version: int, cancelled: Event) -> None:
    """Wait until the version has no request in its queue or in its workers' hands; gives up after a while.

    TorchServe never answers what is queued for a version that goes, and reports nothing but that queue. Requests that
    name no version stop coming with the switch, so it is drained once every look for some seconds has found none. It
    may never be, if somebody names the version in the path.
    """
    deadline = time.monotonic() + _DRAIN_SECONDS
    quiet_since = asked = time.monotonic()
    while (now := time.monotonic()) - quiet_since < _QUIET_SECONDS:
        if now > deadline:
            _LOG.warning("version %d still gets requests that name it; ending it nonetheless", version)
            return
        if is_busy(site.busy, version):
            quiet_since = now
        if now - asked >= _ASK_SECONDS:
            asked = now
            found = site.management.versions().get(version)
            if found is None:
                return  # somebody ended it by hand
            if found.pending:
                quiet_since = now
        _go_on(cancelled, _LOOK_SECONDS)


def _withdraw(site: Site, version: int) -> None:
    """Unregister a version that only our canaries asked, so there is nothing to drain."""
    try:
        if version in site.management.versions():
            site.management.unregister(version)
    except ManagementError as error:  # its workers may still need the folder; `retire` ends it
        _LOG.warning("the refused version %d may still be registered: %s", version, error)
        return
    shutil.rmtree(_folder(site, version), ignore_errors=True)


def _is_default(site: Site, version: int) -> bool:
    try:
        return site.management.default() == version
    except ManagementError:
        return False


def _is_here(store: ModelStore, version: int) -> bool:
    """Whether all files of the release are here: on a disk that is shared or copied, the alias may come first."""
    try:
        release = store.release(version)
    except ManifestError:
        return (store.home / str(version) / FILE_NAME).is_file()  # then it is broken
    files = [release.folder / name for name in release.manifest.files]
    return all(path.is_file() for path in (store.archive(version), *files))


def _go_on(cancelled: Event, seconds: float = 0.0) -> None:
    if cancelled.wait(seconds):
        raise Cancelled


def _folder(site: Site, version: int) -> Path:
    """Where the unpacked archive of a version lies."""
    return site.models / site.store.archive(version).stem


def _logged(log: Path, start: int) -> str:
    """What TorchServe and its workers have logged since the log had `start` bytes."""
    with log.open("rb") as file:
        file.seek(start if start <= os.fstat(file.fileno()).st_size else 0)  # else it was rotated
        return file.read().decode(errors="replace")


def _last_error(logged: str) -> str:
    lines = [line.partition(_OF_WORKER)[2] for line in logged.splitlines() if _OF_WORKER in line and "Error: " in line]
    return f": {lines[-1]}" if lines else "; the server's log says why"
