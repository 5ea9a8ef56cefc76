"""Removing items whose files have gone from the source that they were ingested from.

Only a file that was positively seen to be gone counts: the archive has no such member, or a folder that could be listed
has no such file. What lies in a folder that can't be listed, or in an empty one, as an unmounted disk leaves, may come
back; it stays and is counted. So does a file that is still there but is no longer asked for; it is not counted.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from core.images.folders import Files, ZipSource
from core.images.places import archive_and_member, earlier_readings, place_of
from serving.collection.catalogue.interface import Catalogue
from serving.jobs.ingest.sources import Images

_PAGE = 10_000


class Fate(Enum):
    """What became of a file."""

    ELSEWHERE = "of another source"
    THERE = "there"
    GONE = "gone"
    UNSEEN = "perhaps gone"


@dataclass
class Pruned:
    """How many items were removed, and the places of those that stay because their files could not be looked for."""

    removed: int = 0
    unseen: list[str] = field(default_factory=list)


def prune(catalogue: Catalogue, images: Images) -> Pruned:
    """Remove the items of the source that are not among `images`, and whose files are gone."""
    wanted = {listed.id for listed in images.listed}
    fates = Fates(images.source)
    pruned, cursor = Pruned(), None
    while True:
        page = catalogue.items.page(limit=_PAGE, cursor=cursor)
        others = [(item.id, item.source.path) for item in page.items if item.source.path and item.id not in wanted]
        found = [(name, place, fates.of(place)) for name, place in others]
        pruned.unseen += [place for _, place, fate in found if fate is Fate.UNSEEN]
        gone = [name for name, _, fate in found if fate is Fate.GONE]
        if gone:
            pruned.removed += catalogue.delete(gone).count
        if (cursor := page.cursor) is None:
            return pruned


class Fates:
    """What became of the files of one source; a folder is listed once."""

    def __init__(self, source: Files) -> None:
        self._source = source
        self._root = os.path.realpath(source.path)
        self._listed: dict[str, frozenset[str] | None] = {}

    def of(self, place: str) -> Fate:
        """What became of the file at a place that a catalogue has."""
        if isinstance(self._source, ZipSource):
            member = self._member(place)
            if member is None:
                return Fate.ELSEWHERE
            return Fate.THERE if member in self._source else Fate.GONE
        below = self._root.rstrip("/") + "/"
        if not place.startswith(below) or _is_in_archive(place):
            return Fate.ELSEWHERE
        return self._of_file(place[len(below) :].split("/"))

    def _member(self, place: str) -> str | None:
        """The member's name, if the place is in this archive."""
        whole = place_of(self._root, "")
        if place.startswith(whole):
            return place[len(whole) :]
        return next((member for archive, member in earlier_readings(place) if archive == self._root), None)

    def _of_file(self, parts: Sequence[str]) -> Fate:
        folder = self._root
        for part in parts:
            entries = self._entries(folder)
            if not entries:
                return Fate.UNSEEN
            below = os.path.join(folder, part)
            if part not in entries:
                return Fate.UNSEEN if os.path.lexists(below) else Fate.GONE
            folder = below
        return Fate.THERE

    def _entries(self, folder: str) -> frozenset[str] | None:
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(folder))
            except OSError:
                self._listed[folder] = None
        return self._listed[folder]


def _is_in_archive(place: str) -> bool:
    """Whether a place is a member's; what an earlier version wrote is taken for one in doubt."""
    if archive_and_member(place) is not None:
        return True
    readings = (archive for archive, _ in earlier_readings(place))
    return any(archive.lower().endswith(".zip") or os.path.isfile(archive) for archive in readings)
