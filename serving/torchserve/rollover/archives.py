"""Whether a model archive (.mar) may be served as a release of the model store: it holds code that runs as our user.

The release must verify, and the archive must have been built from it: the manifest in the archive is that of the
store, byte for byte. The graphs inside are checked against that manifest when they are unpacked and when they load;
all of it, with its code, against the digest that was recorded when it was published.
"""

import hashlib
import json
import logging
import shutil
import zipfile
from pathlib import Path
from typing import Any

from core.releases.archive_digest import check_digest, unrecorded
from core.releases.manifest import FILE_NAME, ManifestError, Release
from core.releases.model_store import ModelStore

_LOG = logging.getLogger(__name__)
_OF_TORCHSERVE = "MAR-INF/MANIFEST.json"


def check_archive(store: ModelStore, version: int) -> Release:
    """The release of a version whose archive may be served; raises `ManifestError` with what is wrong and the fix."""
    release = store.release(version)
    if release.manifest.title != f"{store.name}/{version}":
        raise ManifestError(f"{release.folder} says that it is {release.manifest.title}: publish the release again")
    archive = store.archive(version)
    again = f"build it again from {release.folder} with `simclr export`"
    if not archive.is_file():
        raise ManifestError(f"{archive} is missing: {again}")
    digest, numbered = _content(archive, again)
    if digest != release.digest:
        raise ManifestError(
            f"{archive} holds a release with digest {digest[:16]}, {release.folder} has {release.digest[:16]}: {again}"
        )
    if numbered != str(version):
        raise ManifestError(f"{archive} would be registered as version {numbered!r:.20}, not {version}: {again}")
    if not check_digest(archive):
        _LOG.warning("%s", unrecorded(archive))
    release.verify()
    return release


def unpack(archive: Path, release: Release, folder: Path) -> None:
    """Unpack a release's archive into `folder`, in place of what is there; raises `ManifestError` if it is damaged."""
    again = f"build it again from {release.folder} with `simclr export`"
    shutil.rmtree(folder, ignore_errors=True)
    check_digest(archive)
    try:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
    except (zipfile.BadZipFile, FileNotFoundError) as error:
        raise ManifestError(f"{archive} is damaged ({error}): {again}") from error
    unpacked = Release(folder)
    if unpacked.digest != release.digest:
        raise ManifestError(f"{archive} is not of {release.folder} any more: {again}")
    try:
        for name in unpacked.manifest.files:
            if (folder / name).is_file():
                unpacked.file(name)
    except ManifestError as error:
        raise ManifestError(f"{archive} is damaged ({error}): {again}") from error


def _content(archive: Path, again: str) -> tuple[str, str]:
    """The digest of the manifest inside, and the version under which TorchServe registers the archive."""
    try:
        with zipfile.ZipFile(archive) as opened:
            digest = hashlib.sha256(opened.read(FILE_NAME)).hexdigest()
            said: dict[str, Any] = json.loads(opened.read(_OF_TORCHSERVE))
        return digest, str(said["model"]["modelVersion"])
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, OSError) as error:
        raise ManifestError(f"{archive} is no archive of a release ({error}): {again}") from error
