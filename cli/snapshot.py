"""`simclr snapshot` and `simclr restore`: a collection at one moment, saved by its server or from its folder."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.connection import add_server, asking
from cli.printing import print_json
from core.command_line.command import Command
from core.command_line.endings import conclude, counted
from serving.client.errors import ServerError

if TYPE_CHECKING:
    from serving.client.client import Client

_SAVING = """\
A running server keeps snapshots in its collection's folder, by name:
  simclr snapshot monday
  simclr snapshot --list
  simclr snapshot --remove monday

With --collection no server is asked, though one may serve the collection meanwhile:
  simclr snapshot --collection runs/digits/collection digits.sqlite
  simclr snapshot --collection runs/digits/collection --remove monday

A snapshot is of one moment, whatever is written meanwhile. Of pictures that stay in their own files, as `simclr ingest
--collection` leaves them, it has the paths."""
_RESTORING = """\
  simclr restore monday --replace
  simclr restore --collection runs/digits/collection digits.sqlite

Everything in the collection is replaced in one step, while it is served, and its index is built."""


def _add_common(parser: argparse.ArgumentParser) -> None:
    folder = parser.add_argument_group("without a server")
    folder.add_argument("--collection", type=Path, metavar="DIR", help="the collection's folder")
    folder.add_argument("--named", action="store_true", help="NAME is kept in the folder, as a server does it")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    add_server(parser.add_argument_group("through a server"))


def _add_snapshot(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "name", nargs="?", metavar="NAME", help="a name, whose older snapshot is replaced; with --collection, a file"
    )
    which.add_argument("--list", action="store_true", help="list the snapshots that are kept by name")
    which.add_argument("--remove", metavar="NAME", help="remove a snapshot that is kept by name")
    _add_common(parser)


def _add_restore(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the snapshot's name; with --collection, its file")
    parser.add_argument("--replace", action="store_true", help="give up the items that the collection has")
    _add_common(parser)


def _snapshot(client: "Client", given: argparse.Namespace) -> int:
    if given.remove is not None:
        client.remove_snapshot(given.remove)
        return _say_removed(given)
    if given.list:
        return _list(client.snapshots(), as_json=given.json)
    return _say(client.snapshot(given.name), given)


def _restore(client: "Client", given: argparse.Namespace) -> int:
    return _say(client.restore(given.name, replace=given.replace), given)


def _snapshot_folder(given: argparse.Namespace) -> int:
    from serving.collection.commands.snapshot import by_name, save
    from serving.collection.snapshots.jobs import Jobs
    from serving.collection.snapshots.named import NamedSnapshots

    if given.list:
        kept = [vars(one) for one in NamedSnapshots(given.collection).listed()]
        return _list({"snapshots": kept, "jobs": []}, as_json=given.json)
    if given.remove is not None:
        with Jobs(given.collection).alone():
            NamedSnapshots(given.collection).remove(given.remove)
        return _say_removed(given)
    if given.named:
        return _say({"items": by_name("save", given.collection, given.name)}, given)
    items = save(given.collection, Path(given.name))
    return _say({"items": items, "bytes": Path(given.name).stat().st_size}, given)


def _restore_folder(given: argparse.Namespace) -> int:
    from serving.collection.commands.snapshot import by_name, restore

    if given.named:
        items = by_name("restore", given.collection, given.name, replace=given.replace)
    else:
        items = restore(given.collection, Path(given.name), replace=given.replace)
    return _say({"items": items}, given)


def _say(done: dict[str, Any], given: argparse.Namespace) -> int:
    size = f", {counted(done['bytes'], 'byte')}" if "bytes" in done else ""
    conclude(f"{given.name}: {counted(done['items'], 'item')}{size}", as_json=given.json, **done)
    return 0


def _say_removed(given: argparse.Namespace) -> int:
    conclude(f"removed {given.remove}", as_json=given.json, removed=given.remove)
    return 0


def _list(kept: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        return print_json(kept)
    for one in kept["snapshots"]:
        print(f"{one['name']}: {counted(one['items'], 'item')}, {counted(one['bytes'], 'byte')}")
    for job in kept["jobs"]:
        print(f"{job['what']} of {job['name']}: {job['error'] or job['state']}")
    return 0


def _either(
    ask: "Callable[[Client, argparse.Namespace], int]", in_folder: Callable[[argparse.Namespace], int]
) -> Callable[[argparse.Namespace], int]:
    """Through the server, or with --collection in the folder."""

    def run(given: argparse.Namespace) -> int:
        if given.collection is not None:
            return in_folder(given)
        if given.named:
            raise ValueError("--named needs --collection DIR: a server keeps every snapshot by name")
        return asking(ask)(given)

    return run


SNAPSHOT = Command(
    "snapshot",
    "Save a collection as it is now, by name or in a file.",
    _add_snapshot,
    _either(_snapshot, _snapshot_folder),
    details=_SAVING,
    errors=(ServerError,),
)
RESTORE = Command(
    "restore",
    "Give a collection the items of a snapshot.",
    _add_restore,
    _either(_restore, _restore_folder),
    details=_RESTORING,
    errors=(ServerError,),
)
