"""The commands that show what a collection is like: values with their counts, and random items.

    simclr facets label camera.make --filter '{"year": {"gte": 2020}}'
    simclr sample --count 20 --filter '{"label": null}'

What they print is in `cli.printing`.
"""

import argparse
from typing import TYPE_CHECKING

from cli.connection import add_filter, asking_command
from cli.printing import line_of_item, print_facet, print_json
from core.command_line.values import positive

if TYPE_CHECKING:
    from serving.client.client import Client


def _add_facets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", nargs="+", metavar="KEY", help="label, or a key of the metadata, as camera.make")
    add_filter(parser)
    parser.add_argument("--limit", type=positive, default=20, help="values of each key (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def _facets(client: "Client", given: argparse.Namespace) -> int:
    found = client.facets(given.keys, filter=given.filter, limit=given.limit)
    if given.json:
        return print_json(found)
    for key, values in found["facets"].items():
        print_facet(key, values, distinct=found["distinct"][key], missing=found["missing"][key])
    return 0


def _add_sample(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=positive, default=10, help="how many, at most 256 (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, help="a number: the same one gives the same items, while nothing is written"
    )
    add_filter(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, one line for each")


def _sample(client: "Client", given: argparse.Namespace) -> int:
    for item in client.sample(given.count, filter=given.filter, seed=given.seed):
        print_json(item, indent=None) if given.json else print(line_of_item(item))
    return 0


FACETS = asking_command("facets", "Print how often each label, or each value of a key, occurs.", _add_facets, _facets)
SAMPLE = asking_command("sample", "Print random items.", _add_sample, _sample)
