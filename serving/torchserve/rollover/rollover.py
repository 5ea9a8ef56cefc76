"""Put another release in the place of the one that serves, in a running TorchServe, without losing a request.

    check    the archive is of the release, the release verifies, its embedding space is complete
    switch   register -> warm -> caught up -> canaries -> set default
    retire   drain the old -> unregister it

Each looks first at what is there, so a rollover that was broken off anywhere is finished by running all three again.
If anything fails before the default is set, the old release goes on serving and the new one is unregistered.
Left out: deciding when (`serving.torchserve.rollover.following`), and the requests that try a release
(`serving.torchserve.rollover.canaries`).
"""

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from core.releases.manifest import FILE_NAME, ManifestError, Release
from core.releases.model_store import ModelStore
from serving.collection.catalogue.sqlite.catalogue import Catalogue
from serving.collection.errors import CollectionError
from serving.torchserve.busy import is_busy
from serving.torchserve.management import Management, ManagementError, NoAnswer
from serving.torchserve.rollover.archives import check_archive, unpack
from serving.torchserve.rollover.canaries import CanaryError, try_release

_WARM_SECONDS = 120.0
_LOOK_SECONDS = 0.05
_ASK_SECONDS = 0.3  # seldom: with a GPU, TorchServe runs nvidia-smi for every worker that it tells of
_FEW = 256  # items: a first search embeds them within seconds
_STALLED_SECONDS = 300.0
_DRAIN_SECONDS = 150.0  # longer than TorchServe lets any request take
# What is between the queue and the handler, or between the handler and the socket, is seen by neither sign: TorchServe
# packing, sending and reading at most 64 MB, which takes well below a second even where the cores are busy.
_QUIET_SECONDS = 3.0
_GAVE_UP = "Load model failed"
_OF_WORKER = " MODEL_LOG - "
_LOG = logging.getLogger(__name__)


class RolloverError(RuntimeError):
    """The new release can't serve, and why; the one before still does."""


class NotYet(RolloverError):
    """The new release can't serve for now: something is not finished that others work on."""


class Cancelled(RuntimeError):
    """The server is being stopped."""


@dataclass(frozen=True)
class Site:
    """A running server that follows a store: where it answers, and the files that are its own."""

    store: ModelStore
    management: Management
    url: str
    models: Path  # the only folder that its TorchServe loads archives from
    busy: Path
    log: Path
    workers: int
    batch_size: int
    collection: Path | None = None


def check(site: Site, version: int) -> Release:
    """The release of a version that may be served; raises `RolloverError` with what is wrong, or not finished yet."""
    try:
        if site.collection is not None:  # first, for it is cheap, and asked again and again
            missing = space_ready(site.collection, site.store.release(version).space)
            if missing is not None:
                raise NotYet(missing)
        return check_archive(site.store, version)
    except (ManifestError, CollectionError, OSError) as error:
        raise (RolloverError if _is_here(site.store, version) else NotYet)(str(error)) from error


def switch(site: Site, release: Release, *, cancelled: Event) -> None:
    """Let a checked release answer every request that names no version; the others stay registered (`retire`).

    Raises `RolloverError` if it can't serve, `NotYet` if it may later, `Cancelled` once `cancelled` is set; what served
    before then still does.
    """
    version = release.manifest.version
    if site.management.default() == version:
        return
    try:
        _register(site, release, cancelled)
        _wait_until_caught_up(site, release, cancelled)
        _go_on(cancelled)
        try_release(site.url, release, site.workers, search=site.collection is not None)
        _go_on(cancelled)
        site.management.set_default(version)
    except (ManagementError, ManifestError, CanaryError, CollectionError, RolloverError, OSError) as error:
        if cancelled.is_set():
            raise Cancelled from error  # TorchServe goes away under us
        if _is_default(site, version):
            return  # it was done, and only the reply was lost
        _withdraw(site, version)
        raise (NotYet if isinstance(error, NoAnswer | NotYet) else RolloverError)(str(error)) from error


def retire(site: Site, kept: set[int], *, cancelled: Event) -> None:
    """Drain and unregister every version but those kept, which must include the default."""
    for version in site.management.versions().keys() - kept:
        _drain(site, version, cancelled)
        site.management.unregister(version)
        shutil.rmtree(_folder(site, version), ignore_errors=True)


def space_ready(collection: Path, space: str) -> str | None:
    """None if the collection is complete in this embedding space, else what is missing and the fix."""
    catalogue = Catalogue(collection)
    try:
        known = {one.release: one for one in catalogue.spaces()}
        missing = known[space].pending if space in known else catalogue.count()
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
    """Workers one after the other: each takes a core while it loads, and the old release needs the rest."""
    version = release.manifest.version
    start = site.log.stat().st_size
    found = site.management.versions().get(version)
    if found is None:
        folder = _folder(site, version)
        unpack(site.store.archive(version), release, folder)
        _go_on(cancelled)
        site.management.register(folder.name, batch_size=site.batch_size)
    for workers in range(max(1, found.workers if found else 0), site.workers + 1):
        site.management.scale(version, workers)
        _wait_until_warm(site, version, workers, start=start, cancelled=cancelled)


def _wait_until_warm(site: Site, version: int, workers: int, *, start: int, cancelled: Event) -> None:
    deadline = time.monotonic() + _WARM_SECONDS
    while (found := site.management.versions().get(version)) is None or found.ready < workers:
        told = _told(site.log, start)
        if found is None or _GAVE_UP in told:
            raise RolloverError(f"{_folder(site, version).name} can't be loaded{_last_error(told)}")
        if time.monotonic() > deadline:
            raise RolloverError(f"version {version} had not {workers} workers ready after {_WARM_SECONDS:.0f} s")
        _go_on(cancelled, _ASK_SECONDS)


def _wait_until_caught_up(site: Site, release: Release, cancelled: Event) -> None:
    """Until its workers, which embed what waits in the background, have left no more than a first search may.

    A space that was complete long ago, or is written to faster than it was filled, may have a lot waiting.
    """
    if site.collection is None:
        return
    catalogue = Catalogue(site.collection)
    try:
        least, deadline = None, 0.0
        while (waiting := catalogue.count_pending(release.space)) > _FEW:
            if least is None or waiting < least:
                least, deadline = waiting, time.monotonic() + _STALLED_SECONDS
            elif time.monotonic() > deadline:
                raise NotYet(
                    f"{waiting} items wait for an embedding by it, and get no fewer: they come as fast as they are "
                    "embedded, or their pictures are out of reach"
                )
            _go_on(cancelled, _ASK_SECONDS)
    finally:
        catalogue.close()


def _drain(site: Site, version: int, cancelled: Event) -> None:
    """Wait until nothing is in the version's queue or hands; whoever names it in a path may keep that from ever ending.

    TorchServe never answers what it has queued for a version that goes, and tells of nothing but that queue. Requests
    that name no version stop coming with the switch; at every look for some seconds none may wait or be handled.
    """
    deadline = time.monotonic() + _DRAIN_SECONDS
    quiet_since = asked = time.monotonic()
    while (now := time.monotonic()) - quiet_since < _QUIET_SECONDS:
        if now > deadline:
            _LOG.warning("version %d still gets requests of its own; ending it nonetheless", version)
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
    """Nobody but our canaries sent it anything, so there is nothing to drain."""
    try:
        if version in site.management.versions():
            site.management.unregister(version)
    except ManagementError as error:  # its workers may need the folder still; `retire` ends it
        _LOG.warning("the refused version %d may still be registered: %s", version, error)
        return
    shutil.rmtree(_folder(site, version), ignore_errors=True)


def _is_default(site: Site, version: int) -> bool:
    try:
        return site.management.default() == version
    except ManagementError:
        return False


def _is_here(store: ModelStore, version: int) -> bool:
    """Whether the release's files have come: on a disk that is shared or copied, the alias may come before them."""
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


def _told(log: Path, start: int) -> str:
    """What TorchServe and its workers logged since the log had `start` bytes."""
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace")


def _last_error(told: str) -> str:
    lines = [line.partition(_OF_WORKER)[2] for line in told.splitlines() if _OF_WORKER in line and "Error: " in line]
    return f": {lines[-1]}" if lines else "; the server's log says why"
