"""Every file below a folder, in the order of sorted paths, links to folders followed.

Each folder is walked once: a link that leads to what is walked anyway, or that holds the folder itself, is left out,
so no chain of links goes round. What is left out is logged. Memory holds only the entries of the folders above one
file.
"""

import logging
import os
from collections.abc import Iterator

logger = logging.getLogger(__name__)

# Thumbnails, trash and administration of Windows, macOS, Linux, Synology, QNAP and NetApp, in lower case.
_SYSTEM = frozenset(
    {
        *("__macosx", "network trash folder", "temporary items", "desktop.ini"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000", "lost+found"),
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb", "~snapshot"),
    }
)
_NO_NAMES = ("synophoto_thumb", "synofile_thumb")


def is_hidden(name: str) -> bool:
    """Whether a part of a posix path is hidden, or belongs to a system's thumbnails, trash or administration."""
    return any(_is_hidden(part) for part in name.split("/"))


def walk(root: str, *, hidden: bool = False) -> Iterator[str]:
    """The posix paths below `root` of all that is no folder, sorted; on request those that are hidden, too.

    Names that are not UTF-8 are left out, as ids must be. A link to nowhere counts as a file.
    """
    return _Walk(root, hidden=hidden).below(root, "")


class _Walk:
    def __init__(self, root: str, *, hidden: bool) -> None:
        self._root = os.path.realpath(root)
        self._hidden = hidden
        self._followed: list[str] = []

    def below(self, folder: str, inside: str) -> Iterator[str]:
        """The files of `folder`, whose path below the root is `inside`: empty, or ending in a slash."""
        concealed = is_hidden(inside)
        try:
            with os.scandir(folder) as found:
                entries = sorted(filter(None, (self._sorted_by(entry, inside) for entry in found)))
        except OSError as error:
            if not concealed:
                logger.warning("left out a folder: %s", error)
            return
        for name in entries:
            path = os.path.join(folder, name.rstrip("/"))
            if not name.endswith("/"):
                yield inside + name
            elif not os.path.islink(path) or (not concealed and self._follows(path)):
                yield from self.below(path, inside + name)

    def _sorted_by(self, entry: os.DirEntry[str], inside: str) -> str | None:
        """The entry's name, a folder's with the slash of the paths below it: "a.jpg" comes before "a/b.jpg"."""
        if not self._hidden and _is_hidden(entry.name):
            return None
        if not _is_utf8(entry.name):
            logger.warning("left out %r: its name is not UTF-8", inside + entry.name)
            return None
        if _is_folder(entry):
            return f"{entry.name}/"
        if entry.is_symlink() and not os.path.splitext(entry.name)[1] and not os.path.exists(entry.path):
            logger.warning("left out the link %s, which leads nowhere", entry.path)
        return entry.name

    def _follows(self, link: str) -> bool:
        """Whether to go where a link leads; remembers it."""
        target = os.path.realpath(link)
        reason = self._known(target)
        if reason:
            logger.warning("left out the link %s to the folder %s: %s", link, target, reason)
            return False
        self._followed.append(target)
        return True

    def _known(self, target: str) -> str:
        if _holds(target, self._root):
            return "it holds the folder that is being read"
        if _holds(self._root, target) and not is_hidden(os.path.relpath(target, self._root)):
            return "it is read under its own name"
        if any(_holds(folder, target) for folder in self._followed):
            return "another link has led there"
        return ""


def _is_hidden(part: str) -> bool:
    if part.startswith("."):
        return part != "."
    lower = part.lower()
    return lower in _SYSTEM or lower.startswith(_NO_NAMES)


def _holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
