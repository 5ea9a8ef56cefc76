"""What a user names to be embedded (folders, zips, images, a list of paths), and the ids that its images get.

| given | an id is |
| --- | --- |
| one folder, one zip | the path inside it |
| several of them, or images | the path as given, and the path inside it behind |
| a list of paths | the line |

Relative paths in a list start from the folder where the job was begun. Every line of it is tried; from folders and
zips only files with the suffix of an image are taken.
"""

import codecs
import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from posixpath import splitext
from typing import Literal

import msgspec

from core.files.durable import sha256_of
from core.images.folders import FolderSource, ImageSource, SourceError, UnreadableFile, ZipSource, check_utf8
from core.images.formats import SUFFIXES
from core.images.places import place_of
from serving.jobs.bulk.records import ImageRecord

STANDARD_INPUT = "-"


class NamedSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that was named. Ids begin with `prefix`; `base` and `sha256` are a list's folder and digest."""

    kind: Literal["folder", "zip", "image", "list"]
    path: str
    prefix: str = ""
    base: str = ""
    sha256: str | None = None

    def identity(self) -> tuple[str, ...]:
        """What makes it the same source when it is named again, perhaps from another folder."""
        return self.kind, self.path, f"as {self.prefix}" if self.prefix else "", self.sha256 or ""


class SourceFiles:
    """The image files of a source, by name; safe to read from several threads."""

    def __init__(self, source: NamedSource) -> None:
        self._source = source
        self._files = _opened(source)

    def names(self) -> Iterator[str]:
        """The names: sorted, or a list's in its order."""
        if self._source.kind == "list":
            return _lines(self._source.path)
        if self._source.kind == "image":
            return iter([os.path.basename(self._source.path)])
        return self._files.names()

    def read(self, name: str) -> tuple[ImageRecord, bytes | None]:
        """The record of a file and its bytes; None, and a record with an error, if it can't be read."""
        name_of, where = self._id(name), self._where(name)
        try:
            data = self._files.read(name)
        except (UnreadableFile, ValueError) as error:  # ValueError: the name can't be a path
            return ImageRecord(name_of, where, None, None, f"can't be read: {error}"), None
        return ImageRecord(name_of, where, hashlib.sha256(data).hexdigest(), len(data)), data

    def _id(self, name: str) -> str:
        if self._source.kind == "image":
            return self._source.prefix
        return f"{self._source.prefix}/{name}" if self._source.prefix else name

    def _where(self, name: str) -> str:
        if self._source.kind == "zip":
            return place_of(self._source.path, name)
        return place_of(os.path.join(self._files.path, name))


def named(paths: Sequence[str], listed: str | None = None) -> tuple[NamedSource, ...]:
    """The sources that a command names: paths, or the file `listed` with a path on each line ("-": standard input).

    Raises `SourceError` for no path at all, or for one that can't be embedded.
    """
    if bool(paths) == (listed is not None):
        raise SourceError("name what to embed: either PATHs (folders, zips, images), or --list FILE")
    if listed is not None:
        return (_list(listed),)
    if len({os.path.abspath(path) for path in paths}) < len(paths):
        raise SourceError(f"a PATH is given twice in {' '.join(paths)}; its images would get the same ids")
    return tuple(_source(path, alone=len(paths) == 1) for path in paths)


def _source(given: str, *, alone: bool) -> NamedSource:
    path = os.path.abspath(given)
    check_utf8(path)
    prefix = Path(os.path.normpath(given)).as_posix()
    if os.path.isdir(path):
        return NamedSource("folder", path, "" if alone else prefix)
    if not os.path.exists(path):
        raise SourceError(f"{given} does not exist")
    if splitext(path)[1].lower() in SUFFIXES:
        return NamedSource("image", path, prefix)
    if zipfile.is_zipfile(path):
        return NamedSource("zip", path, "" if alone else prefix)
    raise SourceError(
        f"{given} is neither a folder, nor a zip archive, nor an image by its suffix (accepted: "
        f"{', '.join(sorted(SUFFIXES))}); if it has a path on each line, give it as --list {given}"
    )


def _list(given: str) -> NamedSource:
    """A pipe can be read only once, so it has no digest."""
    path = given if given == STANDARD_INPUT else os.path.abspath(given)
    check_utf8(path)
    check_utf8(os.getcwd())
    once = path == STANDARD_INPUT or not stat.S_ISREG(os.stat(path).st_mode)
    return NamedSource("list", path, base=os.getcwd(), sha256=None if once else sha256_of(path))


def _opened(source: NamedSource) -> ImageSource:
    if source.kind == "zip":
        return ZipSource(Path(source.path))
    folders = {"folder": source.path, "image": os.path.dirname(source.path), "list": source.base}
    return FolderSource(Path(folders[source.kind]))


def _lines(path: str) -> Iterator[str]:
    """The lines of a list that are not empty, in UTF-8 or what its byte-order mark says."""
    from_input = path == STANDARD_INPUT
    with open(0 if from_input else path, "rb", closefd=not from_input) as file:
        utf16 = file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding = "utf-16" if utf16 else "utf-8-sig"
        for line in io.TextIOWrapper(file, encoding, errors="replace" if utf16 else "surrogateescape", newline="\n"):
            if stripped := line.rstrip("\r\n"):
                yield stripped
