"""The model store's commands.

    python -m export.store list --store model_store
    python -m export.store show champion --name digits
    python -m export.store diff champion 4 --name digits
    python -m export.store promote 4 --name digits
    python -m export.store rollback --name digits

Exit codes: 0 done, 1 refused or something is wrong (told on stderr, and by `verify` on stdout), 2 usage.
`delete` and `collect` only tell what would go, until --yes is given. A REF is a version or an alias.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.releases.manifest import ManifestError, to_json
from core.releases.model_store import ModelStore
from export.store import history
from export.store.checking import aliases_of, faults_of
from export.store.comparing import differences
from export.store.errors import StoreError
from export.store.promoting import promote, roll_back
from export.store.records import names_in, records
from export.store.removing import KEEP, Sweep, collect, delete
from export.store.showing import columns, differences_text, release_text, shown, size, table


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    given = _arguments(arguments)
    try:
        if given.command != "list" and not (given.store / given.name).is_dir():
            there = ", ".join(names_in(given.store)) or "none"
            raise StoreError(f"{given.store} has no releases of {given.name!r}; there are: {there}")
        return _COMMANDS[given.command](given)
    except (StoreError, ManifestError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _list(given: argparse.Namespace) -> int:
    stores = [ModelStore(given.store, name) for name in ([given.name] if given.name else names_in(given.store))]
    found = [record for store in stores for record in records(store)]
    _tell([asdict(record) for record in found], table(found) if found else "no releases", as_json=given.json)
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
    _tell(values, release_text(release, aliases, faults, archive), as_json=given.json)
    return 0


def _diff(given: argparse.Namespace) -> int:
    store = _store(given)
    found = differences(store.release(given.ref), store.release(given.other))
    _tell(found, differences_text(found), as_json=given.json)
    return 0


def _verify(given: argparse.Namespace) -> int:
    store = _store(given)
    versions = [store.version(given.ref)] if given.ref else store.versions()
    found = {f"{store.name}/{version}": faults_of(store, version) for version in versions}
    aliases = [] if given.ref else aliases_of(store)[1]
    lines = [line for title, faults in found.items() for line in (faults or [f"{title}: good"])]
    _tell({"releases": found, "aliases": aliases}, "\n".join([*lines, *aliases]), as_json=given.json)
    return 1 if aliases or any(found.values()) else 0


def _promote(given: argparse.Namespace) -> int:
    return _moved(promote(_store(given), given.ref, force=given.force, reason=given.reason), given)


def _rollback(given: argparse.Namespace) -> int:
    return _moved(roll_back(_store(given), expected=given.if_champion, reason=given.reason), given)


def _history(given: argparse.Namespace) -> int:
    lines = history.read(_store(given).home)
    heads = ("time", "user", "host", "action", "from", "to", "forced", "reason")
    texts = [tuple(shown(line.get(head)) for head in heads) for line in lines]
    _tell(lines, columns([heads, *texts]), as_json=given.json)
    return 0


def _delete(given: argparse.Namespace) -> int:
    return _swept(delete(_store(given), given.ref, carry_out=given.yes), given)


def _collect(given: argparse.Namespace) -> int:
    return _swept(collect(_store(given), keep=given.keep, carry_out=given.yes), given)


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "show": _show,
    "diff": _diff,
    "verify": _verify,
    "promote": _promote,
    "rollback": _rollback,
    "history": _history,
    "delete": _delete,
    "collect": _collect,
}


def _store(given: argparse.Namespace) -> ModelStore:
    return ModelStore(given.store, given.name)


def _tell(values: Any, text: str, *, as_json: bool) -> None:
    print(json.dumps(values, indent=2) if as_json else text)


def _moved(line: Mapping[str, Any], given: argparse.Namespace) -> int:
    before = f"{given.name}/{line['from']}" if line["from"] is not None else "none"
    print(f"champion: {before} -> {given.name}/{line['to']}")
    for doubt in line.get("doubts", ()):
        print(f"forced, although {doubt}", file=sys.stderr)
    return 0


def _swept(sweep: Sweep, given: argparse.Namespace) -> int:
    for removal in sweep.removals:
        print(f"{size(removal.bytes):>10}  {removal.what}")
    for sentence in sweep.kept:
        print(sentence)
    did = "came free" if given.yes else "would come free; --yes does it"
    print(f"{size(sweep.bytes)} {did}")
    return 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export.store", description="Look after published releases.")
    commands = parser.add_subparsers(dest="command", required=True)
    made = {
        "list": commands.add_parser("list", help="every release, with its figures and verdict"),
        "show": commands.add_parser("show", help="one release: figures, verdict, lineage, files"),
        "diff": commands.add_parser("diff", help="how two releases differ"),
        "verify": commands.add_parser("verify", help="check every byte of one or all releases and archives"),
        "promote": commands.add_parser("promote", help="let a release serve"),
        "rollback": commands.add_parser("rollback", help="let the release before serve again"),
        "history": commands.add_parser("history", help="who promoted, rolled back and deleted what"),
        "delete": commands.add_parser("delete", help="remove one release and its archive"),
        "collect": commands.add_parser("collect", help="remove old releases and what killed runs left"),
    }
    for name, command in made.items():
        command.add_argument("--store", type=Path, default=Path("model_store"), help="default: %(default)s")
        command.add_argument("--name", required=name != "list", help="of the releases")
        if name in ("show", "promote", "delete"):
            command.add_argument("ref", metavar="REF", help="a version or an alias")
        if name in ("list", "show", "diff", "verify", "history"):
            command.add_argument("--json", action="store_true", help="print JSON")
        if name in ("promote", "rollback"):
            command.add_argument("--reason", help="for the history")
        if name in ("delete", "collect"):
            command.add_argument("--yes", action="store_true", help="do it; without, only tell what would go")
    made["diff"].add_argument("ref", metavar="REF")
    made["diff"].add_argument("other", metavar="REF")
    made["verify"].add_argument("ref", metavar="REF", nargs="?", help="a version or an alias (default: all)")
    made["promote"].add_argument("--force", action="store_true", help="also against the verdict of its comparison")
    made["rollback"].add_argument("--if-champion", metavar="REF", help="only if this is the champion now")
    made["collect"].add_argument(
        "--keep", type=int, default=KEEP, help="newest releases to keep (default: %(default)s)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
