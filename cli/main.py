"""`simclr`: the table of all commands, and what happens when one is typed.

A row names the module that holds a command. The module is imported only when its command is typed, so `simclr --help`
and a mistyped name answer at once. A new command is a module with a `Command` in it, and a row here.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

from cli import __version__
from core.command_line.command import Command, parser_of
from core.command_line.command import main as run

P = ParamSpec("P")
T = TypeVar("T")

_FIRST_EXAMPLE = """\
A first example, from a folder of photographs to an encoder:
  simclr prepare --images ~/photographs --out runs/photos/data
  simclr pretrain --data runs/photos/data --out runs/photos/pretrain

`simclr COMMAND --help` says what a command takes."""


@dataclass(frozen=True)
class Row:
    """A command by name, and where it is: `attribute` of `module`.

    `extra` is the extra of the package that brings what the command needs; without one, the package alone has it all.
    """

    name: str
    module: str
    summary: str
    attribute: str = "COMMAND"
    extra: str = ""

    def command(self) -> Command:
        """The command itself; imports its module."""
        found = getattr(importlib.import_module(self.module), self.attribute)
        assert isinstance(found, Command)
        return found


def _row(name: str, module: str, summary: str) -> Row:
    extra = "serve" if module.startswith("serving.") else "train"
    return Row(name, module, summary, extra=extra)


def _asking(name: str, summary: str, *, module: str = "cli.ask", extra: str = "") -> Row:
    return Row(name, module, summary, name.upper(), extra)


GROUPS = {
    "Train an encoder": (
        _row("prepare", "retraining.prepare_command", "Decode images into a data folder to learn from."),
        _row("pretrain", "training.run.command", "Train an encoder by SimCLR, without labels."),
        _row("evaluate", "training.evaluation.command", "Measure a checkpoint's encoder, beside baselines."),
    ),
    "Publish it as a release": (
        _row("export", "export.publishing.command", "Publish an encoder as a release."),
        _row("releases", "export.store.command", "List, compare and promote releases."),
    ),
    "Serve it, or embed without a server": (
        _row("serve", "serving.torchserve.command", "Serve a store's champion, or one archive, until Ctrl-C."),
        _row("keys", "serving.gateway.access.command", "Make, list or revoke the API keys of a server."),
        _row("bulk", "serving.jobs.bulk.command", "Embed folders, zips, images or a list of paths without a server."),
        _row("ingest", "serving.jobs.ingest.command", "Store the images of a folder or zip in a collection."),
    ),
    "Ask a running server": (
        _asking("embed", "Write the embeddings of images, folders and zips to a file.", extra="serve"),
        _asking("classify", "Print the linear probe's label for each image."),
        _asking("search", "Find the neighbours of images, of items or of examples."),
        _asking("upsert", "Store images; an id that exists is replaced."),
        _asking("label", "Give stored items the labels of a CSV or TSV file.", module="cli.label"),
        _asking("update", "Change label and metadata of stored items.", module="cli.label"),
        _asking("get", "Print items by id as JSON, or save a picture."),
        _asking("list", "Print every item."),
        _asking("count", "Count the items."),
        _asking("facets", "Print how often each label, or each value of a key, occurs.", module="cli.explore"),
        _asking("sample", "Print random items.", module="cli.explore"),
        _asking("stats", "Print what the collection holds and the state of its index, as JSON."),
        _asking("duplicates", "Find groups of items that are nearly the same."),
        _asking("delete", "Delete items by id or by a filter."),
        _asking("describe", "Print which release is served, and its limits, as JSON."),
    ),
    "Look after a collection": (
        Row("snapshot", "cli.snapshot", "Save a collection as it is now, by name or in a file.", "SNAPSHOT"),
        Row("restore", "cli.snapshot", "Give a collection the items of a snapshot.", "RESTORE"),
        _row("compact", "serving.collection.commands.compact", "Build a collection's index anew, while it is served."),
        _row("reembed", "serving.jobs.reembed.command", "Embed a collection's items with another release."),
        _row("spaces", "serving.collection.commands.spaces", "List a collection's embedding spaces, or remove one."),
        _row("drift", "serving.collection.drift.command", "Say how a collection has changed since training."),
    ),
    "Retrain": (_row("retrain", "retraining.command", "Train on a collection and promote."),),
    "Your shell": (Row("completion", "cli.completion", "Print the script that completes `simclr` in your shell."),),
}
ROWS = tuple(row for rows in GROUPS.values() for row in rows)
_BY_NAME = {row.name: row for row in ROWS}


class UnknownCommand(ValueError):
    """There is no command by that name; the message suggests the nearest."""


def row_of(name: str) -> Row:
    """The table's row of a command. Raises `UnknownCommand`."""
    if (row := _BY_NAME.get(name)) is None:
        from difflib import get_close_matches

        nearest = get_close_matches(name, _BY_NAME, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else "`simclr --help` lists them all"
        raise UnknownCommand(f"there is no command {name!r}; {hint}")
    return row


def parser_for(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser that takes the words after `simclr`: a command's for `words[1:]`, else that of `simclr` itself.

    `parser_for(["search", "cat.jpg"]).parse_args(["cat.jpg"])`. Raises `UnknownCommand`.
    """
    if words and not words[0].startswith("-"):
        return parser_of(row_of(words[0]).command())
    return _Simclr(prog="simclr", usage="simclr COMMAND ...")


def main(arguments: Sequence[str] | None = None) -> int:
    """`simclr` with these words (default: the process's); returns the exit code."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how the line may go on
        from cli.completion import complete

        complete((row.name, row.summary, row.command) for row in ROWS)
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0].startswith("-"):
        parser_for(words).parse_args(words or ["--help"])
        return 0
    try:
        row = row_of(words[0])
    except UnknownCommand as error:
        print(f"simclr: {error}", file=sys.stderr)
        return 2
    command = _naming_extra(row, row.command)()
    wrapped = replace(
        command, add_arguments=_naming_extra(row, command.add_arguments), run=_naming_extra(row, command.run)
    )
    return run(wrapped, words[1:])


def _naming_extra(row: Row, step: Callable[P, T]) -> Callable[P, T]:
    """The step; where it needs a package that isn't installed, it ends with the name of the extra that brings it."""

    def guarded(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return step(*arguments, **options)
        except ModuleNotFoundError as error:
            if not row.extra or error.name is None or error.name.split(".")[0] in _OURS:
                raise
            raise SystemExit(
                f"error: `simclr {row.name}` needs {error.name}, which is not installed; it comes with the extra "
                f"{row.extra!r}: pip install '.[{row.extra}]' in the checkout"
            ) from error

    return guarded


_OURS = {"core", "training", "export", "serving", "retraining", "cli"}


class _Simclr(argparse.ArgumentParser):
    """`simclr` without a command: --help lists the commands in groups."""

    def __init__(self, **options: str) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.add_argument("--version", action="version", version=f"simclr {__version__}")

    def format_help(self) -> str:
        width = max(map(len, _BY_NAME)) + 2
        parts = ["simclr: from a folder of images to an embedding and search service.\n\nusage: simclr COMMAND ..."]
        for title, rows in GROUPS.items():
            parts.append("\n".join([f"{title}:", *(f"  {row.name:<{width}}{row.summary}" for row in rows)]))
        return "\n\n".join([*parts, _FIRST_EXAMPLE]) + "\n"
