"""What a server starts with: the archive that it serves, checked, and a folder of its own for it."""

import logging
import os
import tempfile
from pathlib import Path

from core.releases.archive_digest import check_digest, unrecorded
from core.releases.manifest import ManifestError, Release
from core.releases.model_store import CHAMPION, ModelStore
from serving.torchserve.rollover.archives import check_archive
from serving.torchserve.settings import LaunchError

_LONGEST_TEMPORARY = 70  # characters: the path of a Unix socket in a folder below may have 107
_LOG = logging.getLogger(__name__)


def champion_of(store: ModelStore) -> Release:
    """The release to start with; raises `LaunchError` if there is no champion, or it may not be served."""
    promote = f"simclr releases promote VERSION --store {store.root} --name {store.name}"
    try:
        version = store.alias(CHAMPION)
        if version is None:
            there = ", ".join(map(str, store.versions())) or "none"
            raise LaunchError(f"{store.home} has no champion (releases: {there}): make one with `{promote}`")
        return check_archive(store, version)
    except (ManifestError, OSError) as error:
        raise LaunchError(
            f"the champion of {store.home} can't be served: {error}; or choose another: {promote}"
        ) from error


def check_alone(archive: Path) -> None:
    """An archive without its release: the digest beside it is all that vouches for its code."""
    try:
        if not check_digest(archive):
            _LOG.warning("%s", unrecorded(archive))
    except ManifestError as error:
        raise LaunchError(str(error)) from error


def own_folder() -> Path:
    """A folder that only our user can enter, short enough for Unix sockets in it."""
    short = len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_TEMPORARY
    return Path(tempfile.mkdtemp(prefix="simclr-", dir=None if short else "/tmp"))
