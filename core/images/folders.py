"""A folder or a zip of image files, read through one interface.

Nothing is extracted, and no name from an archive is ever used as a path on disk. Only files with the suffix of an image
count, and none that is hidden or in a system's trash or thumbnails (`core.images.walk`).
"""

import errno
import logging
import os
import stat
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from posixpath import splitext
from typing import Protocol

from core.images.decode import DEFAULT_LIMITS
from core.images.formats import SUFFIXES
from core.images.places import place_of
from core.images.walk import is_hidden, walk
from core.images.zip_names import is_guessed, name_of

logger = logging.getLogger(__name__)
# Errors that are the file's own, and would come again. EINVAL comes from a damaged archive; those without a number come
# from decompressors. Any other, known or not, may be over tomorrow.
_OF_THE_FILE = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.EINVAL, None),
}


class SourceError(ValueError):
    """A source of images that can't be read at all."""


class UnreadableFile(ValueError):
    """One file of a source that can't be read; the others are unharmed."""


class UnreachableFile(UnreadableFile):
    """A file that can't be read now for a reason outside of it, such as a lost mount; it may be readable later."""


class ImageSource(Protocol):
    """Image files by name; safe to read from several threads."""

    path: Path

    def sizes(self) -> dict[str, tuple[int, int]]:
        """For each file's posix path inside the source, its size in bytes and a stamp that changes when it does."""

    def names(self) -> Iterator[str]:
        """The posix paths of the image files inside the source, sorted."""

    def read(self, name: str) -> bytes:
        """The bytes of one file; `UnreadableFile` says why not."""


class FolderSource:
    """The files under a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _absolute(self) -> str:
        return os.path.realpath(self.path)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Bytes and modification time (ns) of every file, at any depth, whose name is UTF-8 as ids must be.

        A link to nowhere counts as a file, so that reading it says what is wrong with it.
        """
        stamps = ((name, _stamp(os.path.join(self.path, name))) for name in walk(os.fspath(self.path), hidden=True))
        return {name: stamp for name, stamp in stamps if stamp is not None}

    def names(self) -> Iterator[str]:
        """The image files of `sizes`, sorted; memory holds only the entries of the folders above one file."""
        for name in walk(os.fspath(self.path)):
            if is_image(name) and _stamp(os.path.join(self.path, name)) is not None:
                yield name

    def place(self, name: str) -> str:
        """Where a file lies, as `core.images.places` has it."""
        return place_of(f"{self._absolute}/{name}")

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`, a posix path below the folder."""
        file = self.path / name
        try:
            about = file.stat()
            if not stat.S_ISREG(about.st_mode):  # reading a pipe would wait
                raise UnreadableFile(f"{file} is no file")
            _check_bytes(about.st_size)
            return file.read_bytes()
        except OSError as error:
            raise unreadable(error) from error


class ZipSource:
    """The members of a zip archive, by the names that they had as files (`core.images.zip_names`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise SourceError(f"{path} is no readable zip archive: {error}") from error
        named = ((name_of(info), info) for info in self._zip.infolist())
        self._members = {name: info for name, info in named if name and not name.endswith("/")}

    @cached_property
    def _absolute(self) -> str:
        return os.path.realpath(self.path)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Uncompressed bytes and CRC-32 of every member."""
        self._warn_of_guesses()
        return {name: (info.file_size, info.CRC) for name, info in self._members.items()}

    def names(self) -> Iterator[str]:
        """The members that are images, sorted; `zipfile` keeps the archive's table of contents in memory."""
        self._warn_of_guesses()
        return iter(sorted(filter(is_image, self._members)))

    def place(self, name: str) -> str:
        """Where a member lies, as `core.images.places` has it."""
        return place_of(self._absolute, name)

    def read(self, name: str) -> bytes:
        """The bytes of the member `name`, which may also be the archive's own name for it, as earlier versions had."""
        try:
            info = self._members.get(name) or self._zip.getinfo(name)
            _check_bytes(info.file_size)
            return self._zip.read(info)
        except (KeyError, OSError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile) as error:
            raise unreadable(error) from error
        except zipfile.zlib.error as error:  # type: ignore[attr-defined]
            raise UnreadableFile(str(error)) from error

    def _warn_of_guesses(self) -> None:
        guessed = [name for name, info in self._members.items() if is_guessed(info)]
        if guessed:
            logger.warning(
                "%s does not say how %d of its names are encoded; they are read as code page 437, the first: %s",
                self.path,
                len(guessed),
                guessed[0],
            )


Files = FolderSource | ZipSource


def open_source(path: Path) -> Files:
    """The folder or zip at `path`; `SourceError` if it is neither, or if its path is not UTF-8."""
    check_utf8(path)
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return ZipSource(path)
    raise SourceError(f"{path} is neither a folder nor a zip archive")


def check_utf8(path: Path | str) -> None:
    """Raise `SourceError` for a path that is not UTF-8: manifests, catalogues and tables could not name it later."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise SourceError(f"the path {os.fspath(path)!r} is not UTF-8: rename it, or make a link to it") from None


def unreadable(error: Exception) -> UnreadableFile:
    """What to raise for an error in reading a file: `UnreachableFile` if the system is at fault and not the file."""
    return UnreachableFile(str(error)) if _of_the_system(error) else UnreadableFile(str(error))


def is_image(name: str) -> bool:
    """Whether a posix path has the suffix of an image, and is not hidden."""
    return splitext(name)[1].lower() in SUFFIXES and not is_hidden(name)


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        about = os.stat(path)
    except OSError:
        return 0, 0
    return (about.st_size, about.st_mtime_ns) if stat.S_ISREG(about.st_mode) else None


def _of_the_system(error: BaseException | None) -> bool:
    """Whether the system is at fault; looks at causes too, because `zipfile` raises errors of its own from those."""
    while error is not None:
        if isinstance(error, OSError) and error.errno not in _OF_THE_FILE:
            return True
        error = error.__cause__ or error.__context__
    return False


def _check_bytes(size: int) -> None:
    if size > DEFAULT_LIMITS.max_bytes:
        raise UnreadableFile(f"the file has {size} bytes; at most {DEFAULT_LIMITS.max_bytes} are accepted")
