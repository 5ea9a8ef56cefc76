"""`simclr releases`: list, compare, verify, promote, roll back and remove the releases of a model store."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.command_line.command import Command, main
from core.command_line.endings import conclude
from core.files.json_text import json_text
from core.releases.manifest import to_json
from core.releases.model_store import ModelStore
from core.releases.servers import live_servers
from export.store import history
from export.store.differences import differences
from export.store.errors import StoreError
from export.store.faults import aliases_of, faults_of, remarks_of
from export.store.promotion import promote, roll_back
from export.store.records import names_in, records
from export.store.removal import KEEP, Sweep, collect, delete
from export.store.text import DEFAULT_STORE, columns, differences_text, release_text, shown, size, table, typed

_DETAILS = """\
A REF is a version, such as 3, or an alias: champion, challenger or previous.

Examples:
  simclr releases list
  simclr releases show champion --name digits
  simclr releases diff champion 4 --name digits
  simclr releases promote 4 --name digits
  simclr releases rollback --name digits

`delete` and `collect` only say what they would remove, until --yes is given.
Exit codes: 0 done, 1 refused, or `verify` found a fault, 2 wrong usage."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    made = {
        name: commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        for name, (text, _) in _ACTIONS.items()
    }
    for name, command in made.items():
        command.add_argument("--store", type=Path, default=DEFAULT_STORE, help="default: %(default)s")
        command.add_argument("--name", required=name != "list", help="of the releases")
        command.add_argument("--json", action="store_true", help="print JSON")
        if name in ("show", "promote", "delete"):
            command.add_argument("ref", metavar="REF", help="a version or an alias")
        if name in ("promote", "rollback"):
            command.add_argument("--reason", help="kept in the history")
        if name in ("delete", "collect"):
            command.add_argument("--yes", action="store_true", help="do it; without, only say what would go")
    made["diff"].add_argument("ref", metavar="REF")
    made["diff"].add_argument("other", metavar="REF")
    made["verify"].add_argument("ref", metavar="REF", nargs="?", help="a version or an alias (default: all)")
    made["promote"].add_argument("--force", action="store_true", help="even if its comparison speaks against it")
    made["rollback"].add_argument("--if-champion", metavar="REF", help="only if this is the champion now")
    made["collect"].add_argument(
        "--keep", type=int, default=KEEP, help="how many of the newest releases stay (default: %(default)s)"
    )


def _run(given: argparse.Namespace) -> int:
    if given.action != "list" and not (given.store / given.name).is_dir():
        names = ", ".join(names_in(given.store)) or "none"
        raise StoreError(f"{given.store} has no releases of {given.name!r}; it has: {names}")
    return _ACTIONS[given.action][1](given)


def _list(given: argparse.Namespace) -> int:
    stores = [ModelStore(given.store, name) for name in ([given.name] if given.name else names_in(given.store))]
    found = [record for store in stores for record in records(store)]
    _show_values([asdict(record) for record in found], table(found) if found else "no releases", as_json=given.json)
    for fault in [fault for store in stores for fault in aliases_of(store)[1]]:
        print(f"warning: {fault}", file=sys.stderr)
    return 0


def _show(given: argparse.Namespace) -> int:
    store = _store(given)
    version = store.version(given.ref)
    release = store.release(version)
    faults = faults_of(store, version)
    aliases = [alias for alias, meant in aliases_of(store)[0].items() if meant == version]
    archive = str(store.archive(version)) if store.archive(version).is_file() else None
    about = {"aliases": aliases, "digest": release.digest, "space": release.space, "archive": archive}
    values = {**about, "faults": faults, "manifest": json.loads(to_json(release.manifest))}
    _show_values(values, release_text(release, aliases, faults, archive), as_json=given.json)
    return 0


def _diff(given: argparse.Namespace) -> int:
    store = _store(given)
    found = differences(store.release(given.ref), store.release(given.other))
    _show_values(found, differences_text(found), as_json=given.json)
    return 0


def _verify(given: argparse.Namespace) -> int:
    store = _store(given)
    versions = [store.version(given.ref)] if given.ref else store.versions()
    found = {f"{store.name}/{version}": faults_of(store, version) for version in versions}
    remarks = {f"{store.name}/{version}": remarks_of(store, version) for version in versions}
    aliases = [] if given.ref else aliases_of(store)[1]
    lines = [line for title, faults in found.items() for line in (faults or [f"{title}: good", *remarks[title]])]
    values = {"releases": found, "aliases": aliases, "remarks": remarks}
    _show_values(values, "\n".join([*lines, *aliases]), as_json=given.json)
    return 1 if aliases or any(found.values()) else 0


def _promote(given: argparse.Namespace) -> int:
    return _moved(promote(_store(given), given.ref, force=given.force, reason=given.reason), given)


def _rollback(given: argparse.Namespace) -> int:
    return _moved(roll_back(_store(given), expected=given.if_champion, reason=given.reason), given)


def _history(given: argparse.Namespace) -> int:
    lines = history.read(_store(given).home)
    heads = ("time", "user", "host", "action", "from", "to", "forced", "reason")
    texts = [tuple(shown(line.get(head)) for head in heads) for line in lines]
    _show_values(lines, columns([heads, *texts]), as_json=given.json)
    return 0


def _delete(given: argparse.Namespace) -> int:
    return _swept(delete(_store(given), given.ref, carry_out=given.yes), given, "delete", given.ref)


def _collect(given: argparse.Namespace) -> int:
    return _swept(collect(_store(given), keep=given.keep, carry_out=given.yes), given, "collect", "--keep", given.keep)


_ACTIONS: dict[str, tuple[str, Callable[[argparse.Namespace], int]]] = {
    "list": ("list every release with its figures and verdict", _list),
    "show": ("show one release: figures, verdict, lineage and files", _show),
    "diff": ("show how two releases differ", _diff),
    "verify": ("check every byte of one release or of all, and of their archives", _verify),
    "promote": ("make a release the champion, which servers serve", _promote),
    "rollback": ("make the previous champion the champion again", _rollback),
    "delete": ("remove one release and its archive", _delete),
    "collect": ("remove old releases, and what killed processes left behind", _collect),
    "history": ("show who promoted, rolled back and deleted what", _history),
}


def _store(given: argparse.Namespace) -> ModelStore:
    return ModelStore(given.store, given.name)


def _show_values(values: Any, text: str, *, as_json: bool) -> None:
    print(json_text(values, indent=2) if as_json else text)


def _moved(line: Mapping[str, Any], given: argparse.Namespace) -> int:
    for doubt in line.get("doubts", ()):
        print(f"warning: forced, although {doubt}", file=sys.stderr)
    before = f"{given.name}/{line['from']}" if line["from"] is not None else "none"
    store = _store(given)
    servers = live_servers(store)  # they follow the champion by themselves
    conclude(
        f"champion: {before} -> {given.name}/{line['to']}",
        then="" if servers else typed("serve", store=store),
        as_json=given.json,
        **line,
    )
    return 0


def _swept(sweep: Sweep, given: argparse.Namespace, *words: object) -> int:
    if not given.json:
        for removal in sweep.removals:
            print(f"{size(removal.bytes):>10}  {removal.what}")
        for sentence in sweep.kept:
            print(sentence)
    conclude(
        f"{size(sweep.bytes)} {'came free' if given.yes else 'would come free'}",
        then="" if given.yes or not sweep.removals else typed("releases", *words, "--yes", store=_store(given)),
        as_json=given.json,
        **sweep.to_json(done=given.yes),
    )
    return 0


COMMAND = Command("releases", "List, compare and promote releases.", _add_arguments, _run, details=_DETAILS)

if __name__ == "__main__":  # retraining promotes and rolls back with it
    sys.exit(main(COMMAND))
