"""The images that an ingestion takes, from a folder, a zip, or a data folder that `simclr prepare` wrote.

Of a data folder only `dataset.json` (where the images are) and `items.jsonl` (id, label, split) are read.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from posixpath import dirname

from core.images.folders import Files, SourceError, open_source


@dataclass(frozen=True)
class Listed:
    """One image to ingest: its id and label, and its name inside the source."""

    id: str
    label: str | None
    name: str


@dataclass(frozen=True)
class Images:
    """A source, and those of its images that are wanted."""

    source: Files
    listed: Sequence[Listed]

    def read(self, image: Listed) -> bytes:
        """The bytes of one; `UnreadableFile` says why not."""
        return self.source.read(image.name)

    def place_of(self, image: Listed) -> str:
        """Where it lies, as `core.images.places` has it."""
        return self.source.place(image.name)


def image_files(path: Path, *, labels: bool = False, prefix: str = "") -> Images:
    """Every image file of a folder or zip; its id is `prefix` and the path inside.

    With `labels`, the label is the name of the folder that it lies in. Raises `SourceError`.
    """
    source = open_source(path)
    names = list(source.names())
    if not names:
        raise SourceError(f"{path} has no image file in it")
    return Images(source, [Listed(prefix + name, _folder(name) if labels else None, name) for name in names])


def data_folder(data: Path, splits: Sequence[str] = ()) -> Images:
    """The images of a data folder, or only those that belong to one of `splits`. Raises `SourceError`."""
    try:
        about = json.loads((data / "dataset.json").read_text())
        lines = (data / "items.jsonl").read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise SourceError(f"{data} is no data folder: {error.filename} is missing") from error
    path, prefix = Path(about["source"]), about["prefix"]
    if not path.exists():  # an unmounted disk must not look as if all images had been removed
        raise SourceError(f"{path}, where the images of {data} are, does not exist")
    rows = (json.loads(line) for line in lines if line)
    wanted = [
        Listed(row["id"], row["label"], f"{prefix}/{row['id']}" if prefix else row["id"])
        for row in rows
        if not splits or row["split"] in splits
    ]
    return Images(open_source(path), wanted)


def in_batches(listed: Sequence[Listed], size: int) -> Iterator[list[Listed]]:
    """The images in order, `size` at a time."""
    rest = iter(listed)
    while batch := list(islice(rest, size)):
        yield batch


def _folder(name: str) -> str | None:
    return dirname(name).rpartition("/")[2] or None
