"""The commands that change labels and metadata of stored items, without sending the pictures again.

simclr update my/cat one --label pet --metadata '{"year": 2024, "draft": null}'
"""

import argparse
from typing import TYPE_CHECKING

from cli.connection import asking_command
from cli.printing import print_results
from core.command_line.values import json_object

if TYPE_CHECKING:
    from serving.client.client import Client, ItemChange


def _add_update(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", help="an item's id")
    label = parser.add_mutually_exclusive_group()
    label.add_argument("--label", help="the items' label")
    label.add_argument("--no-label", action="store_true", help="remove their label")
    parser.add_argument(
        "--metadata", type=json_object, metavar="JSON", help='merged with what they have; {"year": null} removes year'
    )
    parser.add_argument(
        "--replace-metadata", action="store_true", help="--metadata is all that they are to have afterwards"
    )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def _update(client: "Client", given: argparse.Namespace) -> int:
    if given.label is None and not given.no_label and given.metadata is None:
        raise ValueError("nothing to change: give --label, --no-label or --metadata")
    change: dict[str, object] = {}
    if given.label is not None or given.no_label:
        change["label"] = given.label
    if given.metadata is not None:
        change["metadata"] = given.metadata
    items: list[ItemChange] = [{"id": name, **change} for name in given.ids]  # type: ignore[typeddict-item]
    results = client.update(items, replace_metadata=given.replace_metadata)["results"]
    print_results(given.ids, results, as_json=given.json)
    return 1 if any("error" in result for result in results) else 0


UPDATE = asking_command("update", "Change label and metadata of stored items.", _add_update, _update)
