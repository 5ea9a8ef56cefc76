"""`simclr snapshot` and `simclr restore`: a collection as it was at one moment.

simclr snapshot monday                                       kept by the server, under a name
simclr snapshot --list
simclr restore monday --replace
"""

import argparse
from typing import TYPE_CHECKING

from cli.connection import add_server, asking
from cli.printing import print_json
from core.command_line.command import Command
from core.command_line.endings import conclude, counted
from serving.client.errors import ServerError

if TYPE_CHECKING:
    from serving.client.client import Client


def _add_snapshot(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", metavar="NAME", help="the snapshot's name; an older one is replaced")
    which.add_argument("--list", action="store_true", help="list the snapshots that are kept, and the last jobs")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    add_server(parser)


def _snapshot(client: "Client", given: argparse.Namespace) -> int:
    if given.list:
        return _list(client, as_json=given.json)
    done = client.snapshot(given.name)
    conclude(f"{given.name}: {counted(done['items'], 'item')}", as_json=given.json, **done)
    return 0


def _list(client: "Client", *, as_json: bool) -> int:
    kept = client.snapshots()
    if as_json:
        return print_json(kept)
    for one in kept["snapshots"]:
        print(f"{one['name']}: {counted(one['items'], 'item')}, {counted(one['bytes'], 'byte')}")
    for job in kept["jobs"]:
        print(f"{job['what']} of {job['name']}: {job['error'] or job['state']}")
    return 0


def _add_restore(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the snapshot's name")
    parser.add_argument("--replace", action="store_true", help="give up the items that the collection has")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    add_server(parser)


def _restore(client: "Client", given: argparse.Namespace) -> int:
    done = client.restore(given.name, replace=given.replace)
    conclude(f"{given.name}: {counted(done['items'], 'item')}", as_json=given.json, **done)
    return 0


SNAPSHOT = Command(
    "snapshot", "Save a collection as it is now.", _add_snapshot, asking(_snapshot), errors=(ServerError,)
)
RESTORE = Command(
    "restore", "Give a collection the items of a snapshot.", _add_restore, asking(_restore), errors=(ServerError,)
)
