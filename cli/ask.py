"""The client's command line.

    python -m serving.client search cat.jpg -k 10 --filter '{"label": "pet"}'
    python -m serving.client upsert cat.jpg --id cat --label pet --metadata '{"year": 2024}'
    python -m serving.client ingest ~/photographs --labels
    python -m serving.client duplicates --min-score 0.99
    python -m serving.client embed photographs --out embeddings.npy

Left out: what it prints (`cli.printing`), and talking to the server (`serving.client.client`).
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cli.printing import groups_of, lines_of_item, show
from core.images.folders import SourceError
from serving.client.client import DEFAULT_URL, Client, NewItem, ServerError
from serving.protocol.agreed import MODEL


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    given = _arguments(arguments)
    try:
        with Client(given.url, given.model) as client:
            return _COMMANDS[given.op](client, given)
    except (ServerError, SourceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _embed(client: Client, given: argparse.Namespace) -> int:
    from serving.jobs.bulk.through_server import embed_command  # takes a moment, and nothing else needs it

    return embed_command(client, given.paths, given.out, connections=given.connections)


def _classify(client: Client, given: argparse.Namespace) -> int:
    show(given.images, client.classify(given.images, vote=given.vote), as_json=given.json)
    return 0


def _search(client: Client, given: argparse.Namespace) -> int:
    options: dict[str, Any] = {"filter": given.filter, "offset": given.offset, "exact": given.exact}
    options |= {"min_score": given.min_score, "group_by": given.group_by}
    include = [*(["metadata"] if given.metadata else []), *(["vote"] if given.vote else [])]
    mix = {"positives": given.like, "negatives": given.unlike}
    results = client.search(given.images, ids=given.ids, k=given.k, include=include, **mix, **options)
    names = [*given.images, *given.ids, *(["the mix"] if given.like else [])]
    show(names, results, as_json=given.json)
    return 0


def _upsert(client: Client, given: argparse.Namespace) -> int:
    if given.id is not None and len(given.images) > 1:
        raise ServerError("--id is for one image; several have their paths as ids", 0)
    items: list[NewItem] = [
        {"id": given.id or path.as_posix(), "image": path, "label": given.label, "metadata": given.metadata or {}}
        for path in given.images
    ]
    failed = 0
    for start in range(0, len(items), given.at_once):
        part = items[start : start + given.at_once]
        results = client.upsert(part)["results"]
        show([item["id"] for item in part], results, as_json=given.json)
        failed += sum("error" in result for result in results)
    return 1 if failed else 0


def _delete(client: Client, given: argparse.Namespace) -> int:
    done = client.delete(given.ids, filter=given.filter)
    print(f"deleted {done['deleted']}")
    for name in done["missing"]:
        print(f"there was no {name}", file=sys.stderr)
    return 0


def _get(client: Client, given: argparse.Namespace) -> int:
    if given.picture is not None:
        given.picture.write_bytes(client.picture(given.ids[0], thumbnail=given.thumbnail))
        return 0
    print(json.dumps(client.get(given.ids), indent=2))
    return 0


def _list(client: Client, given: argparse.Namespace) -> int:
    for item in client.items(filter=given.filter):
        print(json.dumps(item) if given.json else lines_of_item(item))
    return 0


def _count(client: Client, given: argparse.Namespace) -> int:
    print(client.count(filter=given.filter))
    return 0


def _stats(client: Client, given: argparse.Namespace) -> int:
    print(json.dumps(client.stats(drift=given.drift), indent=2))
    return 0


def _duplicates(client: Client, given: argparse.Namespace) -> int:
    pairs = client.duplicates(min_score=given.min_score, filter=given.filter)
    groups = groups_of((item["id"], other["id"]) for item in pairs for other in item["duplicates"])
    for group in groups:
        print(json.dumps(group) if given.json else "\n".join([*group, ""]))
    print(f"{len(groups)} groups of near-duplicates, {sum(map(len, groups))} items", file=sys.stderr)
    return 0


def _ingest(client: Client, given: argparse.Namespace) -> int:
    from serving.jobs.ingest.through_server import ingest_command

    return ingest_command(client, given.path, labels=given.labels, prefix=given.prefix, connections=given.connections)


def _snapshots(client: Client, given: argparse.Namespace) -> int:
    print(json.dumps(client.snapshots(), indent=2))
    return 0


def _snapshot(client: Client, given: argparse.Namespace) -> int:
    print(f"{given.name}: {client.snapshot(given.name)['items']} items")
    return 0


def _restore(client: Client, given: argparse.Namespace) -> int:
    print(f"{given.name}: {client.restore(given.name, replace=given.replace)['items']} items")
    return 0


def _describe(client: Client, given: argparse.Namespace) -> int:
    print(json.dumps(client.describe(), indent=2))
    return 0


_COMMANDS: dict[str, Callable[[Client, argparse.Namespace], int]] = {
    "embed": _embed,
    "classify": _classify,
    "search": _search,
    "upsert": _upsert,
    "delete": _delete,
    "get": _get,
    "list": _list,
    "count": _count,
    "stats": _stats,
    "duplicates": _duplicates,
    "ingest": _ingest,
    "snapshots": _snapshots,
    "snapshot": _snapshot,
    "restore": _restore,
    "describe": _describe,
}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.client", description="Ask a running server.")
    parser.add_argument("--url", default=DEFAULT_URL, help="the server (default: %(default)s)")
    parser.add_argument("--model", default=MODEL, help="TorchServe's model name (default: %(default)s)")
    commands = parser.add_subparsers(dest="op", required=True)
    _about_images(commands)
    _about_the_collection(commands)
    _about_snapshots(commands)
    commands.add_parser("describe", help="what the server serves")
    return parser.parse_args(arguments)


def _about_images(commands: Any) -> None:
    embed = commands.add_parser("embed", help="embeddings of images, folders and zips, as a npy file")
    embed.add_argument("paths", nargs="+", metavar="PATH")
    embed.add_argument("--out", type=Path, required=True, help=".npy to write, float32 (N, D); ids go to a .parquet")
    embed.add_argument("--connections", type=int, default=4, help="requests at a time (default: %(default)s)")
    classify = commands.add_parser("classify", help="the linear probe's label for each image file")
    classify.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    search = commands.add_parser("search", help="nearest neighbours of image files, of stored ids, or of examples")
    search.add_argument("images", type=Path, nargs="*", metavar="IMAGE")
    search.add_argument("--id", dest="ids", action="append", default=[], help="a stored id (may be repeated)")
    search.add_argument("--like", action="append", default=[], metavar="ID", help="find what is like these ids ...")
    search.add_argument("--unlike", action="append", default=[], metavar="ID", help="... and unlike these")
    search.add_argument("-k", type=int, default=10, help="how many neighbours (default: %(default)s)")
    search.add_argument("--offset", type=int, default=0, help="skip so many first")
    search.add_argument("--min-score", type=float, help="least cosine similarity")
    search.add_argument("--group-by", metavar="KEY", help="only the best of each value of this key")
    search.add_argument("--exact", action="store_true", help="compare with every embedding")
    search.add_argument("--metadata", action="store_true", help="tell it, too")
    _filter(search)
    for command in (classify, search):
        command.add_argument("--vote", action="store_true", help="the label that the neighbours vote for")
        command.add_argument("--json", action="store_true", help="print the server's results as JSON")


def _about_the_collection(commands: Any) -> None:
    upsert = commands.add_parser("upsert", help="store image files; the same id again replaces")
    upsert.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    upsert.add_argument("--id", help="of a single image (default: the path as given)")
    upsert.add_argument("--label")
    upsert.add_argument("--metadata", type=json.loads, metavar="JSON", help="an object")
    upsert.add_argument("--at-once", type=int, default=16, help="images in a request (default: %(default)s)")
    delete = commands.add_parser("delete", help="remove items, by ids or by a filter")
    delete.add_argument("ids", nargs="*", metavar="ID")
    get = commands.add_parser("get", help="items by id, or the picture of one")
    get.add_argument("ids", nargs="+", metavar="ID")
    get.add_argument("--picture", type=Path, metavar="FILE", help="write the picture of the first id there")
    get.add_argument("--thumbnail", action="store_true", help="a small one, as JPEG")
    listing = commands.add_parser("list", help="every item")
    count = commands.add_parser("count", help="how many items")
    stats = commands.add_parser("stats", help="what the collection holds, and its index")
    stats.add_argument("--drift", action="store_true", help="also how it changed since the encoder was trained")
    duplicates = commands.add_parser("duplicates", help="groups of items that are nearly the same")
    duplicates.add_argument("--min-score", type=float, default=0.98, help="cosine similarity (default: %(default)s)")
    ingest = commands.add_parser("ingest", help="store every image of a folder or zip; run again, it goes on")
    ingest.add_argument("path", type=Path, metavar="PATH")
    ingest.add_argument("--labels", action="store_true", help="the folder that an image lies in is its label")
    ingest.add_argument("--prefix", default="", help="put before each path inside PATH to make the image's id")
    ingest.add_argument("--connections", type=int, default=4, help="requests at a time (default: %(default)s)")
    for command in (delete, listing, count, duplicates):
        _filter(command)
    for command in (upsert, listing, duplicates):
        command.add_argument("--json", action="store_true", help="print JSON, a line each")


def _about_snapshots(commands: Any) -> None:
    commands.add_parser("snapshots", help="what the server keeps, and the last jobs")
    snapshot = commands.add_parser("snapshot", help="keep the collection as of now, in one file on the server's disk")
    restore = commands.add_parser("restore", help="give the collection a snapshot's items")
    for command in (snapshot, restore):
        command.add_argument("name", metavar="NAME")
    restore.add_argument("--replace", action="store_true", help="give up the items that there are")


def _filter(command: argparse.ArgumentParser) -> None:
    command.add_argument("--filter", type=json.loads, metavar="JSON", help='as {"label": "cat", "year": {"gte": 2020}}')
