"""A new version of a name in the model store: one publication at a time, whole or not at all, and never changed."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.files.durable import publish_folder
from core.files.locks import locked
from core.releases.manifest import ManifestError, Release
from core.releases.model_store import ModelStore, versions_in
from export.store.history import deleted
from export.store.locks import PUBLISHING

_LOG = logging.getLogger(__name__)


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold the lock of a name, for one publication at a time."""
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / PUBLISHING):
        yield


def publish_version(home: Path, fill: Callable[[Path, int], object]) -> Release:
    """Let `fill` write a release's files, the manifest last, into a folder for the next version."""
    version = next_version(home)
    partial = home / f".partial-{version}"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir()
    try:
        fill(partial, version)
        publish_folder(partial, home / str(version))
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Release(home / str(version))


def next_version(home: Path) -> int:
    """The first number that no release has or, by the history, ever had."""
    return 1 + max({*versions_in(home), *deleted(home)}, default=0)


def find(home: Path, digests: Mapping[str, Any]) -> Release | None:
    """The newest release that was made of ingredients with these digests and verifies."""
    for version in reversed(versions_in(home)):
        try:
            release = Release(home / str(version))
            if all(release.manifest.lineage.get(key) == value for key, value in digests.items()):
                release.verify()
                return release
        except ManifestError as error:
            _LOG.warning("%s", error)
    return None


def judged_beside(release: Release, champion: Release | None) -> bool:
    """Whether a release's verdict still holds: it was compared with this champion, or is the champion itself."""
    if champion is None:
        return True
    return champion.digest in (release.digest, release.manifest.promotion.get("champion_digest"))


def resolve(reference: str, store: Path, name: str) -> Release:
    """The verified release that a reference means: a folder, "name/3", or a version or an alias of `name`.

    Raises `ManifestError` if there is none, or if it was altered.
    """
    title, _, version = reference.partition("/")
    if Path(reference, "manifest.json").is_file():
        release = Release(reference)
    elif version and (store / title).is_dir():
        release = ModelStore(store, title).release(version)
    else:
        release = ModelStore(store, name).release(reference)
    release.verify()
    return release


def champion_of(store: Path, name: str) -> Release | None:
    """The verified champion of a name, None if none is set; raises `ManifestError` if it was altered."""
    found = ModelStore(store, name)
    version = found.alias("champion")
    return None if version is None else resolve(str(version), store, name)
