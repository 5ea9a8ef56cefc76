"""Store images in a collection: through a running server, or straight into the collection's folder."""

import argparse
import sys
from collections import Counter
from pathlib import Path
from posixpath import dirname

from core.command_line.command import Command, main
from core.command_line.endings import conclude, counted, first_few
from core.command_line.values import positive
from core.releases.model_store import find_release
from serving.client.errors import ServerError
from serving.jobs.ingest.ingestion import Ingestion
from serving.jobs.ingest.sources import Images, data_folder, image_files
from serving.protocol.agreed import API_KEY, DEFAULT_URL

_DETAILS = """\
simclr ingest ~/photographs --labels
simclr ingest ~/photographs --collection runs/digits/collection --release model_store/digits/1
simclr ingest --data runs/digits/data --collection runs/digits/collection --release model_store/digits/1

Without --collection the images are sent to a running server, which keeps copies of them. With --collection and
--release they are embedded here and stored in that folder, which may be new and may be served meanwhile; the images
stay where they are, and the collection has their paths.

Run again, it goes on: images that did not change are neither sent nor embedded twice. Images that can't be read are
listed; what was stored of them stays, and so does metadata that was given elsewhere.

Exit code 3 means that --prune kept items that may have lost their files, because the folders of those can't be listed,
or are empty as an unmounted disk leaves them.
"""
_UNSEEN = 3
_REASONS_SHOWN = 10


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("path", type=Path, nargs="?", metavar="PATH", help="folder or zip of images")
    add("--data", type=Path, metavar="DIR", help="instead of PATH, a data folder written by `simclr prepare`")
    add("--splits", help="which splits of --data to take, separated by commas (default: all)")
    add("--labels", action="store_true", help="the folder of PATH that an image lies in is its label")
    add("--prefix", help="put before each path inside PATH to make the image's id")
    add("--json", action="store_true", help="print what came of it as JSON")
    server = parser.add_argument_group("through a running server").add_argument
    server("--url", help=f"the server's address (default: {DEFAULT_URL})")
    server("--api-key", metavar="KEY", help=f"for a server that needs one (default: ${API_KEY})")
    server("--connections", type=positive, help="requests at the same time (default: 4)")
    folder = parser.add_argument_group("into a folder").add_argument
    folder("--collection", type=Path, metavar="DIR", help="folder of the collection")
    folder("--release", metavar="REF", help="the release that embeds: its folder, or name/version in model_store")
    folder("--prune", action="store_true", help="remove items whose files have gone from PATH (always done of --data)")


def _run(given: argparse.Namespace) -> int:
    _refuse_misplaced(given)
    images = (
        data_folder(given.data, given.splits.split(",") if given.splits else ())
        if given.data is not None
        else image_files(given.path, labels=given.labels, prefix=given.prefix or "")
    )
    return _send(given, images) if given.collection is None else _store(given, images)


def _refuse_misplaced(given: argparse.Namespace) -> None:
    """Say that an option means nothing here, rather than ignore it."""
    if (given.path is None) == (given.data is None):
        raise ValueError("give either PATH or --data DIR, to say which images to store")
    if given.collection is None:
        _refuse(given, ("release",), "is for --collection DIR: a running server embeds with the release that it serves")
        _refuse(given, ("prune",), "is for --collection DIR: `simclr delete` removes items through a server")
    elif given.release is None:
        raise ValueError("--collection needs --release REF, the release that embeds")
    else:
        _refuse(given, ("url", "api_key", "connections"), "is for a running server, and --collection needs none")
    if given.data is None:
        _refuse(given, ("splits",), "is for --data DIR: a folder or zip has no splits")
    else:
        _refuse(given, ("labels", "prefix"), "is for PATH: a data folder has ids and labels of its own")


def _refuse(given: argparse.Namespace, names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if getattr(given, name):
            raise ValueError(f"--{name.replace('_', '-')} {reason}")


def _send(given: argparse.Namespace, images: Images) -> int:
    from serving.client.client import Client
    from serving.jobs.ingest.through_server import CONNECTIONS, ingest_images

    with Client(given.url or DEFAULT_URL, api_key=given.api_key) as client:
        done = ingest_images(client, images, connections=given.connections or CONNECTIONS)
    _list_left_out(done)
    source = given.path or given.data
    conclude(
        f"{source}: {done.stored:,} sent, {done.unchanged:,} unchanged, {len(done.left_out):,} left out",
        then=f"simclr search IMAGE{f' --url {given.url}' if given.url else ''}",
        as_json=given.json,
        sent=done.stored,
        unchanged=done.unchanged,
        left_out=len(done.left_out),
    )
    done.check(source)
    return 0


def _store(given: argparse.Namespace, images: Images) -> int:
    from serving.collection.catalogue.opening import open_catalogue  # SQLite, FAISS and the runtime
    from serving.engine import Engine
    from serving.jobs.ingest.into_folder import ingest

    release = find_release(given.release)
    catalogue = open_catalogue(given.collection, create=True)
    done = ingest(Engine.open(release.folder), catalogue, images, remove_gone=given.prune or given.data is not None)
    items = len(catalogue.vectors.census(release.space).rows)
    _list_left_out(done)
    store, name = release.folder.parent.parent, release.manifest.name
    conclude(
        f"collection {given.collection}: {counted(items, 'item')} ({done.stored:,} embedded, {done.unchanged:,} "
        f"unchanged, {done.removed:,} removed, {len(done.left_out):,} unreadable)",
        then=f"simclr serve --store {store} --name {name} --collection {given.collection}",
        as_json=given.json,
        items=items,
        embedded=done.stored,
        unchanged=done.unchanged,
        removed=done.removed,
        unseen=len(done.unseen),
        unreadable=len(done.left_out),
    )
    done.check(given.path or given.data)
    return _UNSEEN if _say_unseen(done) and given.prune else 0


def _list_left_out(done: Ingestion) -> None:
    for line in first_few((f"left out {name}: {reason}" for name, reason in done.left_out.items()), _REASONS_SHOWN):
        print(line, file=sys.stderr)


def _say_unseen(done: Ingestion) -> bool:
    """Say which items stay although they may be gone; whether there are any."""
    if done.unseen:
        folders = Counter(dirname(place) for place in done.unseen)
        few = first_few((f"  {folder}: {counted(count, 'item')}" for folder, count in folders.items()), _REASONS_SHOWN)
        print(
            f"not removed: {counted(len(done.unseen), 'item')}, as the folders of their files can't be listed or are "
            "empty (is a disk not mounted?); `simclr delete` removes items whatever became of their files",
            *few,
            sep="\n",
            file=sys.stderr,
        )
    return bool(done.unseen)


COMMAND = Command(
    "ingest",
    "Store the images of a folder or zip in a collection.",
    _add_arguments,
    _run,
    details=_DETAILS,
    errors=(ServerError,),
    resume="what is stored is kept, and the same command goes on from there",
)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
