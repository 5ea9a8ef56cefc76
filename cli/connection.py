"""What every command that asks a running server has: --url and --api-key, and a `Client` while it runs.

The client's module takes a moment to import, so that happens when a command runs and not for its --help.
"""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from core.command_line.command import Command
from core.command_line.values import json_object
from serving.client.errors import ServerError
from serving.protocol.agreed import API_KEY, DEFAULT_URL

if TYPE_CHECKING:
    from serving.client.client import Client


def add_server(parser: argparse._ActionsContainer) -> None:
    """The options that say which server is asked."""
    parser.add_argument("--url", default=DEFAULT_URL, help="the server's address (default: %(default)s)")
    parser.add_argument("--api-key", metavar="KEY", help=f"for a server that needs one (default: ${API_KEY})")


def asking(ask: "Callable[[Client, argparse.Namespace], int]") -> Callable[[argparse.Namespace], int]:
    """`ask` as a command's `run`: with a client of the given server, whose `ServerError` is the command's to expect."""

    def run(given: argparse.Namespace) -> int:
        from serving.client.client import Client

        with Client(given.url, api_key=given.api_key) as client:
            return ask(client, given)

    return run


def asking_command(
    name: str,
    summary: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    ask: "Callable[[Client, argparse.Namespace], int]",
    *,
    errors: tuple[type[Exception], ...] = (ServerError,),
    resume: str = "",
) -> Command:
    """A command that asks a server: its own arguments, and those that say which server. The rest is as in `Command`."""

    def add_all(parser: argparse.ArgumentParser) -> None:
        add_arguments(parser)
        add_server(parser)

    return Command(name, summary, add_all, asking(ask), errors=errors, resume=resume)


def add_filter(parser: argparse.ArgumentParser) -> None:
    """The option that narrows a command to some items."""
    example = '{"label": "cat", "year": {"gte": 2020}}'
    parser.add_argument("--filter", type=json_object, metavar="JSON", help=f"only items like {example}")
