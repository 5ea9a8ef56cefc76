"""What is wrong with a release and its archive: each fault as a sentence.

The serving code in an archive may be another version's; the digest that was recorded at its publication guards it.
"""

import hashlib
import zipfile
import zlib
from pathlib import Path

from core.releases.archive_digest import check_digest, recorded, unrecorded
from core.releases.manifest import FILE_NAME, FORMATS, ManifestError, Release
from core.releases.model_store import ALIASES, Alias, ModelStore

_CHUNK = 1 << 20
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


def faults_of(store: ModelStore, version: int) -> list[str]:
    """What is wrong with a release and with its archive, if there is one; empty if nothing is."""
    folder = store.home / str(version)
    try:
        release = Release(folder)
    except (ManifestError, OSError) as error:
        return [str(error)]
    archive = store.archive(version)
    faults = [*_misplaced(store, version, release), *_altered(release), *_unlisted(release)]
    return faults + (archive_faults(archive, release) if archive.exists() else [])


def remarks_of(store: ModelStore, version: int) -> list[str]:
    """What can't be checked of a release, though nothing is known to be wrong."""
    archive = store.archive(version)
    try:
        return [unrecorded(archive)] if archive.is_file() and recorded(archive) is None else []
    except (ManifestError, OSError):
        return []  # then it is a fault


def archive_faults(path: Path, release: Release) -> list[str]:
    """What is wrong with an archive that should be this release's; reads every byte of it."""
    again = "export the release again, which builds its archive anew"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if FILE_NAME not in names:
                return [f"{path} has no {FILE_NAME}: {again}"]
            found = {name: _sha256_in(archive, name) for name in names if not name.endswith("/")}
    except _UNREADABLE as error:
        return [f"{path} is no whole archive ({error}): {again}"]
    if found[FILE_NAME] != release.digest:
        return [f"{path} is of another release: its manifest has digest {found[FILE_NAME]}, not {release.digest}"]
    listed = {name: entry.sha256 for name, entry in release.manifest.files.items()}
    faults = [
        f"{path} has an altered {name}: {again}" for name in found if listed.get(name, found[name]) != found[name]
    ]
    if not set(FORMATS.values()) & set(found):
        faults.append(f"{path} has no graph that could be run: {again}")
    return faults or _other_than_published(path)


def _other_than_published(path: Path) -> list[str]:
    try:
        check_digest(path)
    except (ManifestError, OSError) as error:
        return [str(error)]
    return []


def aliases_of(store: ModelStore) -> tuple[dict[Alias, int], list[str]]:
    """The aliases that mean an existing release, and what is wrong with the others."""
    versions = store.versions()
    found: dict[Alias, int] = {}
    faults = []
    for alias in ALIASES:
        try:
            version = store.alias(alias)
        except (ManifestError, OSError) as error:
            faults.append(str(error))
            continue
        if version in versions:
            found[alias] = version
        elif version is not None:
            faults.append(f"the alias {alias} of {store.name} means release {version}, which does not exist")
    return found, faults


def _misplaced(store: ModelStore, version: int, release: Release) -> list[str]:
    expected = f"{store.name}/{version}"
    title = release.manifest.title
    return [f"{release.folder} holds release {title}, not {expected}: move it back"] if title != expected else []


def _altered(release: Release) -> list[str]:
    faults = []
    for name in release.manifest.files:
        try:
            release.file(name)
        except (ManifestError, OSError) as error:
            faults.append(str(error))
    return faults


def _unlisted(release: Release) -> list[str]:
    """Files that the manifest does not list, and links, which would lead out of the release."""
    listed = {FILE_NAME, *release.manifest.files}
    faults = []
    for path in sorted(release.folder.rglob("*")):
        name = path.relative_to(release.folder).as_posix()
        if path.is_symlink():
            faults.append(f"{path} is a link; a release has files of its own only")
        elif not path.is_dir() and name not in listed:
            faults.append(f"{path} is not in the manifest: remove it")
    return faults


def _sha256_in(archive: zipfile.ZipFile, name: str) -> str:
    digest = hashlib.sha256()
    with archive.open(name) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
