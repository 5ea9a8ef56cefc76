"""A folder or a zip of image files, read through one interface.

Nothing is extracted and no name from an archive is ever used as a path on disk. Files that are no images by
their suffix, hidden files and __MACOSX are left out and counted. Links to folders are not followed.
"""

import hashlib
import logging
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from posixpath import splitext
from typing import Protocol

from serving.images import DEFAULT_LIMITS, SUFFIXES

logger = logging.getLogger(__name__)

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLIT_FOLDERS = {
    "train": TRAIN,
    "test": TEST,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
}


class SourceError(ValueError):
    """A source of images that can't be read at all."""


class UnreadableFile(ValueError):
    """One file of a source that can't be read; the others are unharmed."""


class ImageSource(Protocol):
    """Image files by name; safe to read from several threads."""

    path: Path

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Every file's posix path inside the source, with its bytes and a stamp that changes with it."""

    def read(self, name: str) -> bytes:
        """The bytes of one file; `UnreadableFile` says why not."""


class FolderSource:
    """The files under a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Bytes and modification time (ns) of every file, at any depth, whose name is UTF-8 as ids must be.

        A link to nowhere counts as a file, so that reading it says what is wrong with it.
        """
        found = {}
        for folder, _, names in os.walk(self.path, onerror=_warn):
            below = Path(folder).relative_to(self.path).as_posix()
            for name in names:
                stamp = _stamp(os.path.join(folder, name))
                if stamp is not None and _is_utf8(name):
                    found[name if below == "." else f"{below}/{name}"] = stamp
        return found

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`, a posix path below the folder."""
        file = self.path / name
        try:
            _check_bytes(file.stat().st_size)
            return file.read_bytes()
        except OSError as error:
            raise UnreadableFile(str(error)) from error


class ZipSource:
    """The members of a zip archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise SourceError(f"{path} is no readable zip archive: {error}") from error

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Uncompressed bytes and CRC-32 of every member."""
        return {info.filename: (info.file_size, info.CRC) for info in self._zip.infolist() if not info.is_dir()}

    def read(self, name: str) -> bytes:
        """The bytes of the member `name`."""
        try:
            _check_bytes(self._zip.getinfo(name).file_size)
            return self._zip.read(name)
        except (KeyError, OSError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile) as error:
            raise UnreadableFile(str(error)) from error
        except zipfile.zlib.error as error:  # type: ignore[attr-defined]
            raise UnreadableFile(str(error)) from error


@dataclass(frozen=True)
class Listing:
    """The image files of a source: names with `prefix` (the one common folder, or "") taken off, sorted.

    `ignored` counts the other files by kind (a suffix, "hidden" or "without suffix"), most frequent first;
    `fingerprint` changes when a file is added, removed or changed.
    """

    names: list[str]
    prefix: str
    ignored: dict[str, int]
    fingerprint: str


def open_source(path: Path) -> ImageSource:
    """The folder or zip at `path`; `SourceError` if it is neither."""
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return ZipSource(path)
    raise SourceError(f"{path} is neither a folder nor a zip archive")


def list_images(source: ImageSource) -> Listing:
    """List the image files of a source; `SourceError` if there is none."""
    sizes = source.sizes()
    full = sorted(name for name in sizes if _is_image(name))
    if not full:
        raise SourceError(
            f"{source.path} holds no image files ({len(sizes)} others); "
            f"accepted suffixes: {', '.join(sorted(SUFFIXES))}"
        )
    prefix = _common_folder(full)
    skip = len(prefix) + 1 if prefix else 0
    return Listing(
        names=[name[skip:] for name in full] if skip else full,
        prefix=prefix,
        ignored=_kinds(name for name in sizes if not _is_image(name)),
        fingerprint=_fingerprint(full, sizes),
    )


def _fingerprint(names: list[str], sizes: dict[str, tuple[int, int]]) -> str:
    digest = hashlib.sha256()
    for number, name in enumerate(names):
        line = f"{name}\t{sizes[name]}"
        digest.update((f"\n{line}" if number else line).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def member_path(prefix: str, name: str) -> str:
    """Where an item of a listing lies inside its source."""
    return f"{prefix}/{name}" if prefix else name


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        about = os.stat(path)
    except OSError:
        return 0, 0
    return (about.st_size, about.st_mtime_ns) if stat.S_ISREG(about.st_mode) else None


def _warn(error: OSError) -> None:
    logger.warning("left out a folder: %s", error)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        logger.warning("left out %r: its name is not UTF-8", name)
        return False
    return True


def _is_image(name: str) -> bool:
    return splitext(name)[1].lower() in SUFFIXES and not _is_hidden(name)


def _is_hidden(name: str) -> bool:
    return any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in name.split("/"))


def _kinds(names: Iterable[str]) -> dict[str, int]:
    """Counts by kind, most frequent first, equal ones by name: folders are not listed in the same order everywhere."""
    counts = Counter(map(_kind, names))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _kind(name: str) -> str:
    """What an ignored file is, for the user to see whether it should have been read."""
    return "hidden" if _is_hidden(name) else splitext(name)[1].lower() or "without suffix"


def _common_folder(names: list[str]) -> str:
    """The one top folder that holds everything, unless its name says that it is a split."""
    tops = {name.split("/", 1)[0] if "/" in name else "" for name in names}
    top = tops.pop()
    return "" if tops or top.lower() in SPLIT_FOLDERS else top


def _check_bytes(size: int) -> None:
    if size > DEFAULT_LIMITS.max_bytes:
        raise UnreadableFile(f"the file has {size} bytes; at most {DEFAULT_LIMITS.max_bytes} are accepted")
