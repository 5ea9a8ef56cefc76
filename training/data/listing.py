"""The image files of a source as training needs them: all names, their common folder, a fingerprint.

Their labels and splits follow from the names in `training.data.layout`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from posixpath import commonpath, dirname, splitext

from core.images.folders import ImageSource, SourceError, is_image
from core.images.formats import SUFFIXES
from core.images.walk import is_hidden
from training.data.layout import SPLIT_FOLDERS


@dataclass(frozen=True)
class Listing:
    """The image files of a source: names with `prefix` (the folders that hold everything, or "") taken off, sorted.

    `ignored` counts the other files by kind (a suffix, "hidden" or "without suffix"), most frequent first;
    `fingerprint` changes when a file is added, removed or changed.
    """

    names: list[str]
    prefix: str
    ignored: dict[str, int]
    fingerprint: str


def list_images(source: ImageSource) -> Listing:
    """List the image files of a source; `SourceError` if there is none."""
    sizes = source.sizes()
    full = sorted(name for name in sizes if is_image(name))
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
        ignored=_kinds(name for name in sizes if not is_image(name)),
        fingerprint=_fingerprint(full, sizes),
    )


def member_path(prefix: str, name: str) -> str:
    """Where an item of a listing lies inside its source."""
    return f"{prefix}/{name}" if prefix else name


def _fingerprint(names: list[str], sizes: dict[str, tuple[int, int]]) -> str:
    digest = hashlib.sha256()
    for number, name in enumerate(names):
        line = f"{name}\t{sizes[name]}"
        digest.update((f"\n{line}" if number else line).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _kinds(names: Iterable[str]) -> dict[str, int]:
    """Counts by kind, most frequent first, equal ones by name: folders are not listed in the same order everywhere."""
    counts = Counter(map(_kind, names))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _kind(name: str) -> str:
    """What an ignored file is, for the user to see whether it should have been read."""
    return "hidden" if is_hidden(name) else splitext(name)[1].lower() or "without suffix"


def _common_folder(names: list[str]) -> str:
    """The folders that hold all of the sorted `names`, down to one whose name says that it is a split."""
    common = commonpath([dirname(names[0]), dirname(names[-1])])
    return "/".join(takewhile(lambda folder: folder.lower() not in SPLIT_FOLDERS, common.split("/")))
