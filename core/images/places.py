"""Where a picture lies, as one text: the path of its file, or archive.zip//member for a member of an archive.

A path of the system never has two slashes in a row, so the text is read back the same whatever characters names have.
Earlier versions put a "!" between archive and member, which names may contain as well: what they wrote can only be
tried against the files that are there (`earlier_readings`).
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

_WITHIN = "//"
_EARLIER = "!"
_SLASHES = re.compile("/+")


def place_of(path: Path | str, member: str | None = None) -> str:
    """The text for the file at the absolute `path`, or for a member of the archive there."""
    where = _SLASHES.sub("/", os.fspath(path))
    return where if member is None else f"{where}{_WITHIN}{member}"


def archive_and_member(place: str) -> tuple[str, str] | None:
    """The archive's path and the member's name; None for the path of a file."""
    archive, within, member = place.partition(_WITHIN)
    return (archive, member) if within else None


def earlier_readings(place: str) -> Iterator[tuple[str, str]]:
    """Every archive and member that a place may mean which an earlier version wrote; none for other files."""
    at = place.find(_EARLIER)
    while at >= 0:
        yield place[:at], place[at + 1 :]
        at = place.find(_EARLIER, at + 1)
