"""`simclr completion SHELL`: complete commands, options, choices and file names with the Tab key (by argcomplete).

A shell that completes a line starts `simclr` with the line in its environment. `complete` then asks the parser of the
named command alone, so Tab is as quick as that command's --help.
"""

import argparse
import os
from collections.abc import Callable, Iterable

import argcomplete
from argcomplete.lexers import split_line

from core.command_line.command import Command

_DETAILS = """\
To have it in every new shell:
  bash  echo 'eval "$(simclr completion bash)"' >> ~/.bashrc
  zsh   echo 'eval "$(simclr completion zsh)"' >> ~/.zshrc
  fish  simclr completion fish > ~/.config/fish/completions/simclr.fish"""


Offer = tuple[str, str, Callable[[], Command]]


def complete(offers: Iterable[Offer]) -> None:
    """Print how the line that a shell asks about may go on, and end the process.

    `offers` are all commands: name, summary, and what imports the command.
    """
    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    argcomplete.autocomplete(_parser_of_line(split_line(line)[3], offers))


def _parser_of_line(words: list[str], offers: Iterable[Offer]) -> argparse.ArgumentParser:
    """The parser of `simclr`, where only the command that `words` name has its arguments."""
    parser = argparse.ArgumentParser(prog="simclr")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers()
    for name, summary, command in offers:
        own = commands.add_parser(name, help=summary)
        if words[1:2] == [name]:
            command().add_arguments(own)
    return parser


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell whose script is printed")


def _run(given: argparse.Namespace) -> int:
    print(argcomplete.shellcode(["simclr"], shell=given.shell))  # type: ignore[attr-defined]
    return 0


COMMAND = Command(
    "completion", "Print the script that completes `simclr` in your shell.", _add_arguments, _run, details=_DETAILS
)
