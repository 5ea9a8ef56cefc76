"""`simclr keys`: the API keys that a gateway takes."""

import argparse
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from core.command_line.command import Command
from core.command_line.endings import conclude
from serving.gateway.access.key_file import change, default_path, read
from serving.gateway.access.keys import MAX_RATE, NAME_PATTERN, Grant, Key, KeyList, key_of, new_text

_DETAILS = """\
  simclr keys add camera --scope write
  simclr keys add shop --scope read --collection default --rate 20
  simclr keys list
  simclr keys revoke camera

A key is shown once, when it is made; the file has only its hash. From the first key on, a gateway that uses the file
needs one for every request, also after the last was revoked; without the file, a gateway at 127.0.0.1 is open again
when it starts anew. A running gateway heeds a change within two seconds.

read: search, embed, get, list and the like. write: also upsert, update and
delete. admin: also snapshots and restoring."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="what", required=True)
    add = commands.add_parser("add", help="make a key and print it")
    add.add_argument("name", type=_name, metavar="NAME", help="what the key is called in lists and logs")
    add.add_argument("--scope", choices=("read", "write", "admin"), required=True, help="what it allows")
    add.add_argument(
        "--collection",
        type=_name,
        action="append",
        default=[],
        metavar="C",
        help="only this collection (may be repeated; default: all)",
    )
    add.add_argument("--rate", type=_rate, metavar="R", help="at most so many requests a second (default: no bound)")
    revoke = commands.add_parser("revoke", help="make a key invalid")
    revoke.add_argument("name", metavar="NAME", help="the key's name")
    for command in (add, commands.add_parser("list", help="a line for each key"), revoke):
        command.add_argument(
            "--file", type=Path, default=default_path(), help="the key file (default: $SIMCLR_KEYS, else %(default)s)"
        )
        command.add_argument("--json", action="store_true", help="print JSON")


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(
            f"is {text!r}; it must have 1 to 64 letters, digits and . _ @ -, with a letter or digit first"
        )
    return text


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= MAX_RATE:
        raise argparse.ArgumentTypeError(f"is {text!r}; it must be a number above 0 and at most {MAX_RATE:,}")
    return rate


def _run(given: argparse.Namespace) -> int:
    {"add": _add, "list": _list, "revoke": _revoke}[given.what](given)
    return 0


def _add(given: argparse.Namespace) -> None:
    grant = Grant(name=given.name, scope=given.scope, collections=tuple(given.collection), rate=given.rate)
    text = new_text()
    key = key_of(text, grant, datetime.now(UTC).replace(microsecond=0))
    change(given.file, lambda keys: _with(keys, key))
    if given.json:
        conclude("", as_json=True, key=text, **_shown(key))
        return
    print(text)  # alone, so that a script can take it
    print(f"This is the key {key.name}; it is not shown again. Its hash is in {given.file}.", file=sys.stderr)


def _list(given: argparse.Namespace) -> None:
    keys = (read(given.file) or KeyList()).keys
    if given.json:
        print(msgspec.json.encode([_shown(key) for key in keys]).decode())
        return
    print(f"{'name':20}  {'id':8}  {'scope':5}  {'rate':>8}  {'created':16}  collections")
    for key in keys:
        rate = "-" if key.rate is None else f"{key.rate:g}/s"
        where = ", ".join(key.collections) or "all"
        print(f"{key.name:20}  {key.id:8}  {key.scope:5}  {rate:>8}  {key.created:%Y-%m-%d %H:%M}  {where}")


def _revoke(given: argparse.Namespace) -> None:
    left = change(given.file, lambda keys: _without(keys, given.name)).keys
    rest = "" if left else "; no key is left, so a gateway that uses this file answers nobody"
    conclude(f"revoked {given.name}{rest}", as_json=given.json, revoked=given.name, left=len(left))


def _with(keys: KeyList, key: Key) -> KeyList:
    if any(other.name == key.name for other in keys.keys):
        raise ValueError(f"there is a key {key.name!r} already: revoke it first, or choose another name")
    return KeyList(keys=(*keys.keys, key))


def _without(keys: KeyList, name: str) -> KeyList:
    left = tuple(key for key in keys.keys if key.name != name)
    if len(left) == len(keys.keys):
        there = ", ".join(key.name for key in left) or "none"
        raise ValueError(f"there is no key {name!r}; there are: {there}")
    return KeyList(keys=left)


def _shown(key: Key) -> dict[str, Any]:
    """What may be seen of a key: all but its hash."""
    shown: dict[str, Any] = msgspec.to_builtins(key)
    del shown["sha256"]
    return shown


COMMAND = Command("keys", "Make, list or revoke the API keys of a server.", _add_arguments, _run, details=_DETAILS)
