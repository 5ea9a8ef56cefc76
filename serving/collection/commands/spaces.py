"""The embedding spaces of a collection: which there are, how complete each is, and giving one up.

    python -m serving.spaces --collection runs/digits/collection list
    python -m serving.spaces --collection runs/digits/collection close model_store/digits/2 --yes

A space is kept complete for a release that serves or may serve again; each costs a vector an item, and every write must
reach it. Close one only when no server has its release loaded. Without --yes, closing tells what it would remove.
Where Milvus searches, name it as the server's --index does, for what it has of the space to be removed there too.
Left out: filling a space (`serving.jobs.reembed`).
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from core.releases.manifest import FILE_NAME, ManifestError, Release
from serving.collection.catalogue.sqlite.catalogue import Catalogue
from serving.collection.catalogue.sqlite.spaces import Space
from serving.collection.errors import CatalogueError, CollectionError
from serving.collection.index.choice import FAISS, IndexChoice, index_name
from serving.collection.index.faiss.compaction import clear
from serving.collection.index.opening import drop_in_milvus


class _Line(NamedTuple):
    """A space that is kept, or (None) vectors of a release that is not."""

    release: str
    space: Space | None
    vectors: int
    base: str


def _lines(catalogue: Catalogue) -> list[_Line]:
    with catalogue.reading():
        kept = {space.release: space for space in catalogue.spaces()}
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


def _list(catalogue: Catalogue) -> int:
    print(f"{'space':16}  {'state':8}  {'vectors':>10}  {'pending':>10}  {'failed':>8}  index")
    for release, space, vectors, base in _lines(catalogue):
        state = "not kept" if space is None else "complete" if space.complete else "filling"
        pending, failed = (space.pending, space.failed) if space is not None else (0, 0)
        print(f"{release[:16]}  {state:8}  {vectors:>10}  {pending:>10}  {failed:>8}  {base}")
    return 0


def _close(catalogue: Catalogue, named: str, index: IndexChoice, *, sure: bool) -> int:
    line = _meant(_lines(catalogue), named)
    what = f"space {line.release[:16]} with {line.vectors} vectors (index: {line.base})"
    if not sure:
        print(f"would remove {what}; give --yes to do it")
        return 0
    if index.uri:  # first: where Milvus does not answer, the space is still there to be named again
        drop_in_milvus(catalogue, line.release, index)
    catalogue.close_space(line.release)
    clear(catalogue)
    if catalogue.space(line.release) is not None:
        raise CatalogueError(f"{what} was opened again meanwhile: some process uses its release; stop it first")
    print(f"removed {what}")
    return 0


def _meant(lines: Sequence[_Line], named: str) -> _Line:
    """The space that a release folder, or the beginning of a digest, names."""
    of_folder = (Path(named) / FILE_NAME).is_file()
    digest = Release(named).space if of_folder else named
    found = [line for line in lines if digest and line.release.startswith(digest)]
    if len(found) != 1:
        there = ", ".join(line.release[:16] for line in lines) or "none"
        raise CatalogueError(f"{named!r} names {len(found)} spaces of the collection; there are: {there}")
    return found[0]


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.spaces", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--collection", type=Path, required=True, help="folder of the collection")
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("list", help="a line for each space")
    close = commands.add_parser("close", help="remove a space with its vectors and its index")
    close.add_argument("space", metavar="SPACE", help="the beginning of its digest, or the folder of a release")
    close.add_argument("--index", type=index_name, default=FAISS, help="milvus:URI, if Milvus searches")
    close.add_argument("--yes", action="store_true", help="really remove it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    given = _arguments(arguments)
    try:
        catalogue = Catalogue(given.collection)
        if given.what == "list":
            return _list(catalogue)
        return _close(catalogue, given.space, IndexChoice.parse(given.index), sure=given.yes)
    except (CollectionError, ManifestError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
