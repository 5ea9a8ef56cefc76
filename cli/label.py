"""The commands that change labels and metadata of stored items, without sending the pictures again.

    simclr label labels.csv --id-column file --label-column class --dry-run
    simclr update my/cat one --label pet --metadata '{"year": 2024, "draft": null}'

Vectors stay as they are, and nothing is embedded again.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from cli.connection import asking_command
from cli.printing import print_results
from core.command_line.endings import conclude, counted, first_few
from core.command_line.values import json_object
from serving.client.errors import ServerError
from serving.protocol.agreed import ID_COLUMN, LABEL_COLUMN

if TYPE_CHECKING:
    from serving.client.client import Client, ItemChange

_AT_ONCE = 500  # items in one request
_NAMED = 10
_REFUSED = (400, 404)  # what is the matter with items, not with the server
Labels = Sequence[tuple[str, str | None]]


@dataclass(eq=False)
class Labelling:
    """What came of the labels of a table: `failed` says by id why a label could not be given."""

    updated: int = 0
    unchanged: int = 0
    unknown: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def count(self, *, changes: bool) -> None:
        """One more that has the label now."""
        if changes:
            self.updated += 1
        else:
            self.unchanged += 1

    def fail(self, name: str, status: int, message: str) -> None:
        """One more that has not."""
        if status == 404:
            self.unknown.append(name)
        else:
            self.failed[name] = message


def _add_label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, metavar="FILE", help="a CSV or TSV file; its first line names the columns")
    parser.add_argument("--id-column", default=ID_COLUMN, metavar="NAME", help="of the ids (default: %(default)s)")
    parser.add_argument(
        "--label-column", default=LABEL_COLUMN, metavar="NAME", help="of the labels (default: %(default)s)"
    )
    parser.add_argument("--remove-empty", action="store_true", help="an empty label removes the one that the item has")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be changed")
    parser.add_argument("--ignore-unknown", action="store_true", help="ids that the collection lacks are no error")
    parser.add_argument("--json", action="store_true", help="print what came of it as JSON")


def _label(client: "Client", given: argparse.Namespace) -> int:
    from serving.protocol.labels import labels_from_csv  # with NumPy, which takes a moment

    found = labels_from_csv(given.table.read_bytes(), id_column=given.id_column, label_column=given.label_column)
    labels = [one for one in found if given.remove_empty or one[1] is not None]
    done = Labelling()
    with tqdm(total=len(labels), desc="label", unit=" items", disable=None, delay=1) as bar:
        for part in _parts(labels):
            (_compare if given.dry_run else _send)(client, part, done)
            bar.update(len(part))
    _tell(done, empty=len(found) - len(labels), given=given)
    return 1 if done.failed or (done.unknown and not given.ignore_unknown) else 0


def _parts(labels: Labels) -> Iterator[Labels]:
    return (labels[at : at + _AT_ONCE] for at in range(0, len(labels), _AT_ONCE))


def _send(client: "Client", part: Labels, done: Labelling) -> None:
    """Give the labels; where the request fails as a whole, as none can be given, find out why for each."""
    changes: list[ItemChange] = [{"id": name, "label": label} for name, label in part]
    try:
        results = client.update(changes)["results"]
    except ServerError as error:
        if error.status not in _REFUSED:
            raise
        if len(part) == 1 and error.status != 404:
            done.failed[part[0][0]] = str(error)
            return
        stored = _stored(client, part)
        done.unknown += [name for name, _ in part if name not in stored]
        for one in part:
            if one[0] in stored:
                _send(client, [one], done)
        return
    for (name, _), result in zip(part, results, strict=True):
        if "error" in result:
            done.fail(name, result["error"]["status"], result["error"]["message"])
        else:
            done.count(changes=result["outcome"] == "updated")


def _compare(client: "Client", part: Labels, done: Labelling) -> None:
    """Count what `_send` would do."""
    stored = _stored(client, part)
    for name, label in part:
        if name in stored:
            done.count(changes=stored[name] != label)
        else:
            done.unknown.append(name)


def _stored(client: "Client", part: Labels) -> dict[str, str | None]:
    """The labels that those items have which exist."""
    try:
        items = client.get([name for name, _ in part])
    except ServerError as error:
        if error.status != 404:
            raise
        client.count()  # fails with 404, too, where there is no such server, and not where no item exists
        return {}
    return {item["id"]: item["label"] for item in items if "error" not in item}


def _tell(done: Labelling, *, empty: int, given: argparse.Namespace) -> None:
    unknown = (f"there is no item {name}" for name in done.unknown)
    failed = (f"{name}: {why}" for name, why in done.failed.items())
    for line in (*first_few(unknown, _NAMED), *first_few(failed, _NAMED)):
        print(line, file=sys.stderr)
    if empty:
        ids = counted(empty, "id has", "ids have")
        print(f"{ids} no label in the table: --remove-empty removes what such items have", file=sys.stderr)
    counts = f"{done.unchanged:,} unchanged, {len(done.unknown):,} unknown"
    counts += f", {len(done.failed):,} failed" if done.failed else ""
    conclude(
        f"{counted(done.updated, 'item')} {'would be ' if given.dry_run else ''}updated, {counts}",
        as_json=given.json,
        updated=done.updated,
        unchanged=done.unchanged,
        unknown=done.unknown,
        failed=done.failed,
        empty=empty,
        dry_run=given.dry_run,
    )


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


LABEL = asking_command(
    "label",
    "Give stored items the labels of a CSV or TSV file.",
    _add_label,
    _label,
    resume="the labels before this are given; run it again for the rest",
)
UPDATE = asking_command("update", "Change label and metadata of stored items.", _add_update, _update)
