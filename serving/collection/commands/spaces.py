"""`simclr spaces`: which embedding spaces a collection keeps, how complete each is, and giving one up.

Retraining starts it as `python -m serving.collection.commands.spaces`. Spaces are filled by `simclr reembed`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.command_line.command import Command, main
from core.command_line.endings import conclude
from core.files.json_text import json_text
from core.releases.manifest import FILE_NAME, ManifestError, Release
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.spaces import Space
from serving.collection.errors import CatalogueError
from serving.collection.index.choice import FAISS, IndexChoice, index_name

_DETAILS = """\
  simclr spaces --collection runs/digits/collection list
  simclr spaces --collection runs/digits/collection close model_store/digits/2 --yes

A space is kept complete for a release that is served or may be served again. Each costs one vector an item, and every
write must reach it. Close a space only when no server has its release loaded. Without --yes, close only says what it
would remove. If Milvus searches the collection, name it as the server's --index does, so that Milvus drops the vectors
of the space too.
"""


class _Line(NamedTuple):
    """A space that is kept, or (None) vectors of a release that is not."""

    release: str
    space: Space | None
    vectors: int
    base: str

    @property
    def state(self) -> str:
        """In a word or two."""
        if self.space is None:
            return "not kept"
        return "complete" if self.space.complete else "filling"


def _lines(catalogue: Catalogue) -> list[_Line]:
    with catalogue.reading():
        kept = {space.release: space for space in catalogue.spaces.all()}
        held = {one.release: one for one in catalogue.stats().releases}
    return [
        _Line(
            release,
            kept.get(release),
            held[release].vectors if release in held else 0,
            base.kind if release in held and (base := held[release].base) is not None else "-",
        )
        for release in sorted(kept.keys() | held.keys())
    ]


def _list(catalogue: Catalogue, *, as_json: bool) -> int:
    lines = _lines(catalogue)
    if as_json:
        print(json_text([_to_json(line) for line in lines]))
        return 0
    print(f"{'space':16}  {'state':8}  {'vectors':>10}  {'pending':>10}  {'failed':>8}  index")
    for line in lines:
        pending, failed = (line.space.pending, line.space.failed) if line.space is not None else (0, 0)
        print(
            f"{line.release[:16]}  {line.state:8}  {line.vectors:>10}  {pending:>10}  {failed:>8}  {line.base}",
        )
    return 0


def _to_json(line: _Line) -> dict[str, object]:
    pending, failed = (line.space.pending, line.space.failed) if line.space is not None else (0, 0)
    counts = {"vectors": line.vectors, "pending": pending, "failed": failed}
    return {"space": line.release, "state": line.state, **counts, "index": line.base}


def _close(catalogue: Catalogue, given: argparse.Namespace) -> int:
    index = IndexChoice.parse(given.index)
    line = _meant(_lines(catalogue), given.space)
    what = f"space {line.release[:16]} with {line.vectors} vectors (index: {line.base})"
    values: dict[str, Any] = {"space": line.release, "vectors": line.vectors}
    if not given.yes:
        conclude(f"would remove {what}; give --yes to do it", as_json=given.json, removed=False, **values)
        return 0
    _remove(catalogue, line.release, index)
    if catalogue.spaces.get(line.release) is not None:
        raise CatalogueError(f"{what} was opened again meanwhile: some process uses its release; stop it first")
    conclude(f"removed {what}", as_json=given.json, removed=True, **values)
    return 0


def _remove(catalogue: Catalogue, release: str, index: IndexChoice) -> None:
    from serving.collection.index.faiss.compaction import clear
    from serving.collection.index.opening import drop_in_milvus

    if index.uri:  # first: if Milvus does not answer, the space is still there to be named again
        drop_in_milvus(catalogue, release, index)
    catalogue.spaces.close(release)
    clear(catalogue)


def _meant(lines: Sequence[_Line], named: str) -> _Line:
    """The space that a release folder, or the beginning of a digest, names."""
    of_folder = (Path(named) / FILE_NAME).is_file()
    digest = Release(named).space if of_folder else named
    found = [line for line in lines if digest and line.release.startswith(digest)]
    if len(found) != 1:
        there = ", ".join(line.release[:16] for line in lines) or "none"
        raise CatalogueError(f"{named!r} names {len(found)} spaces of the collection; there are: {there}")
    return found[0]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--collection", type=Path, required=True, help="folder of the collection")
    parser.add_argument("--json", action="store_true", help="print JSON")
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("list", help="a line for each space")
    close = commands.add_parser("close", help="remove a space with its vectors and its index")
    close.add_argument("space", metavar="SPACE", help="the beginning of its digest, or the folder of a release")
    close.add_argument("--index", type=index_name, default=FAISS, help="milvus:URI, if Milvus searches")
    close.add_argument("--yes", action="store_true", help="really remove it")


def _run(given: argparse.Namespace) -> int:
    catalogue = open_catalogue(given.collection)
    if given.what == "list":
        return _list(catalogue, as_json=given.json)
    return _close(catalogue, given)


COMMAND = Command(
    "spaces",
    "List a collection's embedding spaces, or remove one.",
    _add_arguments,
    _run,
    details=_DETAILS,
    errors=(ManifestError,),
)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
