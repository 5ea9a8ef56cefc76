"""A folder or a zip of image files, read through one interface.

Nothing is extracted, and no name from an archive is ever used as a path on disk. Only files with the suffix of an image
count, and neither hidden files nor __MACOSX. Links to folders are not followed.
"""

import errno
import logging
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from posixpath import splitext
from typing import Protocol

from core.images.decode import DEFAULT_LIMITS, SUFFIXES

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

    def names(self) -> Iterator[str]:
        """The image files of `sizes`, sorted; memory holds only the entries of the folders above one file."""
        return _image_names(os.fspath(self.path), "")

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

    def names(self) -> Iterator[str]:
        """The members that are images, sorted; `zipfile` keeps the archive's table of contents in memory."""
        return iter(sorted(name for name in set(self._zip.namelist()) if is_image(name)))

    def read(self, name: str) -> bytes:
        """The bytes of the member `name`."""
        try:
            _check_bytes(self._zip.getinfo(name).file_size)
            return self._zip.read(name)
        except (KeyError, OSError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile) as error:
            raise unreadable(error) from error
        except zipfile.zlib.error as error:  # type: ignore[attr-defined]
            raise UnreadableFile(str(error)) from error


def open_source(path: Path) -> ImageSource:
    """The folder or zip at `path`; `SourceError` if it is neither."""
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return ZipSource(path)
    raise SourceError(f"{path} is neither a folder nor a zip archive")


def unreadable(error: Exception) -> UnreadableFile:
    """What to raise for an error in reading a file: `UnreachableFile` if the system is at fault and not the file."""
    return UnreachableFile(str(error)) if _of_the_system(error) else UnreadableFile(str(error))


def is_image(name: str) -> bool:
    """Whether a posix path has the suffix of an image, and is not hidden."""
    return splitext(name)[1].lower() in SUFFIXES and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether a part of a posix path is hidden, or is __MACOSX."""
    return any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in name.split("/"))


def _image_names(folder: str, below: str) -> Iterator[str]:
    """The image files at any depth of `folder`, whose path in the source is `below`, in the order of sorted paths."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(_sorting_name(entry) for entry in found if _is_wanted(entry))
    except OSError as error:
        _warn(error)
        return
    for name in entries:
        if name.endswith("/"):
            yield from _image_names(os.path.join(folder, name[:-1]), below + name)
        else:
            yield below + name


def _sorting_name(entry: os.DirEntry[str]) -> str:
    """The entry's name, a folder's with the slash of the paths below it: "a.jpg" comes before "a/b.jpg"."""
    return f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is an image file, or a folder that may hold some."""
    if entry.is_dir(follow_symlinks=False):
        return not is_hidden(entry.name) and _is_utf8(entry.name)
    regular = entry.is_file(follow_symlinks=False) or _stamp(entry.path) is not None
    return regular and is_image(entry.name) and _is_utf8(entry.name)


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
