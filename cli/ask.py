"""The commands that ask a running server, one for each operation.

    simclr search cat.jpg -k 10 --filter '{"label": "pet"}'
    simclr upsert cat.jpg --id cat --label pet --metadata '{"year": 2024}'
    simclr duplicates --min-score 0.99
    simclr embed photographs --out embeddings.npy

What they print is in `cli.printing`.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli.connection import add_filter, asking_command
from cli.printing import groups_of, line_of_item, print_json, print_results
from core.command_line.endings import counted
from core.command_line.values import json_object, positive
from serving.client.errors import ServerError
from serving.jobs.parallel.tasks import WorkError

if TYPE_CHECKING:
    from serving.client.client import Client, NewItem

_JSON = "print the answer as JSON"
_JSON_LINES = "print JSON, one line for each"


def _add_embed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="an image, a folder or a zip")
    parser.add_argument("--out", type=Path, required=True, help=".npy to write, float32 (N, D); ids go to a .parquet")
    parser.add_argument(
        "--connections", type=positive, default=4, help="requests at the same time (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print what came of it as JSON")


def _embed(client: "Client", given: argparse.Namespace) -> int:
    from serving.jobs.bulk.through_server import embed_command  # takes a moment to import

    return embed_command(client, given.paths, given.out, connections=given.connections, as_json=given.json)


def _add_classify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="an image file")
    _add_vote(parser)
    parser.add_argument("--json", action="store_true", help=_JSON)


def _classify(client: "Client", given: argparse.Namespace) -> int:
    print_results(given.images, client.classify(given.images, vote=given.vote), as_json=given.json)
    return 0


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, nargs="*", metavar="IMAGE", help="an image file")
    parser.add_argument(
        "--id", dest="ids", action="append", default=[], metavar="ID", help="a stored item's id; may be repeated"
    )
    parser.add_argument("--like", action="append", default=[], metavar="ID", help="find what resembles these items ...")
    parser.add_argument("--unlike", action="append", default=[], metavar="ID", help="... but not these")
    parser.add_argument("-k", type=int, default=10, help="number of neighbours (default: %(default)s)")
    parser.add_argument("--offset", type=int, default=0, help="skip this many neighbours first")
    parser.add_argument("--min-score", type=float, help="lowest cosine similarity")
    parser.add_argument("--group-by", metavar="KEY", help="only the best item for each value of this metadata key")
    parser.add_argument("--exact", action="store_true", help="compare with every embedding instead of using the index")
    parser.add_argument("--metadata", action="store_true", help="print the neighbours' metadata too")
    add_filter(parser)
    _add_vote(parser)
    parser.add_argument("--json", action="store_true", help=_JSON)


def _search(client: "Client", given: argparse.Namespace) -> int:
    include = [*(["metadata"] if given.metadata else []), *(["vote"] if given.vote else [])]
    results = client.search(
        given.images,
        ids=given.ids,
        positives=given.like,
        negatives=given.unlike,
        k=given.k,
        filter=given.filter,
        include=include,
        offset=given.offset,
        exact=given.exact,
        min_score=given.min_score,
        group_by=given.group_by,
    )
    names = [*given.images, *given.ids, *(["the mix"] if given.like else [])]
    print_results(names, results, as_json=given.json)
    return 0


def _add_upsert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="an image file")
    parser.add_argument("--id", help="the item's id, if there is one image (default: its path as given)")
    parser.add_argument("--label", help="the items' label")
    parser.add_argument("--metadata", type=json_object, metavar="JSON", help='an object, as {"year": 2024}')
    parser.add_argument("--at-once", type=positive, default=16, help="images in one request (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the answer to each request as JSON")


def _upsert(client: "Client", given: argparse.Namespace) -> int:
    if given.id is not None and len(given.images) > 1:
        raise ValueError(f"--id is {given.id!r}, which is for one image; {len(given.images)} have their paths as ids")
    items: list[NewItem] = [
        {"id": given.id or path.as_posix(), "image": path, "label": given.label, "metadata": given.metadata or {}}
        for path in given.images
    ]
    failed = 0
    for start in range(0, len(items), given.at_once):
        part = items[start : start + given.at_once]
        results = client.upsert(part)["results"]
        print_results([item["id"] for item in part], results, as_json=given.json)
        failed += sum("error" in result for result in results)
    return 1 if failed else 0


def _add_get(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", help="an item's id")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="save the picture of the first id to this file")
    parser.add_argument("--thumbnail", action="store_true", help="a small picture, as JPEG")


def _get(client: "Client", given: argparse.Namespace) -> int:
    if given.picture is not None:
        given.picture.write_bytes(client.picture(given.ids[0], thumbnail=given.thumbnail))
        return 0
    return print_json(client.get(given.ids))


def _add_list(parser: argparse.ArgumentParser) -> None:
    add_filter(parser)
    parser.add_argument("--json", action="store_true", help=_JSON_LINES)


def _list(client: "Client", given: argparse.Namespace) -> int:
    for item in client.items(filter=given.filter):
        print_json(item, indent=None) if given.json else print(line_of_item(item))
    return 0


def _count(client: "Client", given: argparse.Namespace) -> int:
    print(client.count(filter=given.filter))
    return 0


def _add_stats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--drift", action="store_true", help="also how it has changed since the encoder was trained")


def _stats(client: "Client", given: argparse.Namespace) -> int:
    return print_json(client.stats(drift=given.drift))


def _add_duplicates(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--min-score", type=float, default=0.98, help="cosine similarity (default: %(default)s)")
    add_filter(parser)
    parser.add_argument("--json", action="store_true", help=_JSON_LINES)


def _duplicates(client: "Client", given: argparse.Namespace) -> int:
    pairs = client.duplicates(min_score=given.min_score, filter=given.filter)
    groups = groups_of((item["id"], other["id"]) for item in pairs for other in item["duplicates"])
    for group in groups:
        print_json(group, indent=None) if given.json else print("\n".join([*group, ""]))
    items = counted(sum(map(len, groups)), "item")
    print(f"{counted(len(groups), 'group')} of near-duplicates, {items}", file=sys.stderr)
    return 0


def _add_delete(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", metavar="ID", help="an item's id")
    add_filter(parser)
    parser.add_argument("--json", action="store_true", help=_JSON)


def _delete(client: "Client", given: argparse.Namespace) -> int:
    done = client.delete(given.ids, filter=given.filter)
    if given.json:
        return print_json(done)
    print(f"deleted {done['deleted']}")
    for name in done["missing"]:
        print(f"there was no {name}", file=sys.stderr)
    return 0


def _describe(client: "Client", given: argparse.Namespace) -> int:
    return print_json(client.describe())


def _add_vote(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vote", action="store_true", help="also print the label that the neighbours vote for")


def _add_nothing(parser: argparse.ArgumentParser) -> None:
    pass


EMBED = asking_command(
    "embed",
    "Write the embeddings of images, folders and zips to a file.",
    _add_embed,
    _embed,
    errors=(ServerError, WorkError),
    resume="nothing of --out is kept",
)
CLASSIFY = asking_command("classify", "Print the linear probe's label for each image.", _add_classify, _classify)
SEARCH = asking_command("search", "Find the neighbours of images, of items or of examples.", _add_search, _search)
UPSERT = asking_command("upsert", "Store images; an id that exists is replaced.", _add_upsert, _upsert)
GET = asking_command("get", "Print items by id as JSON, or save a picture.", _add_get, _get)
LIST = asking_command("list", "Print every item.", _add_list, _list)
COUNT = asking_command("count", "Count the items.", add_filter, _count)
STATS = asking_command(
    "stats", "Print what the collection holds and the state of its index, as JSON.", _add_stats, _stats
)
DUPLICATES = asking_command(
    "duplicates", "Find groups of items that are nearly the same.", _add_duplicates, _duplicates
)
DELETE = asking_command("delete", "Delete items by id or by a filter.", _add_delete, _delete)
DESCRIBE = asking_command(
    "describe", "Print which release is served, and its limits, as JSON.", _add_nothing, _describe
)
