"""A command as a value, and the one way to run any of them.

    COMMAND = Command("compact", "Build a collection's index anew.", _add_arguments, _run)

    if __name__ == "__main__":  # only where another process of ours starts it
        sys.exit(main(COMMAND))

`cli.main` has the table of all commands, and imports a command's module only when that command is typed.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from core.command_line.endings import FAULT, ending_of
from core.files.permissions import masked

_TO_END = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Command:
    """One command of `simclr`.

    `name` is what is typed after `simclr`; `summary` is one sentence. `details` stands below the options in the
    command's help: examples, exit codes. `run` returns the exit code. Of the exceptions that `run` raises, those in
    `errors`, every ValueError and every OSError are the user's to mend: they become a sentence and exit code 1. Any
    other exception is a fault of ours. `resume` says, after a signal, how to go on. `prog` is what is typed where that
    is not `simclr` and the name.
    """

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    details: str = ""
    errors: tuple[type[Exception], ...] = ()
    resume: str = ""
    prog: str = ""


def parser_of(command: Command) -> argparse.ArgumentParser:
    """The command's parser: its help has the summary, the options and the details."""
    parser = argparse.ArgumentParser(
        prog=command.prog or f"simclr {command.name}",
        description=command.summary,
        epilog=command.details or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return parser


def main(command: Command, arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments (default: the process's) and run the command; returns the exit code.

    Wrong usage ends with exit code 2, as argparse does it. SIGTERM and SIGHUP end the command as Ctrl-C does: what it
    has under way is closed on the way out; one that our caller ignores (`nohup`) stays ignored. Output that nobody
    reads any more is no error. Files are made for their owner only (`core.files.permissions`).
    """
    given = parser_of(command).parse_args(arguments)
    _configure_logging()
    with _signals_end_it():
        try:
            with masked():
                code = command.run(given)
            sys.stdout.flush()
        except BaseException as error:  # whatever it is, it ends in a sentence
            ending = ending_of(error, expected=(ValueError, OSError, *command.errors), resume=command.resume)
            if ending.code == FAULT and os.environ.get("SIMCLR_TRACEBACK"):
                raise
            if ending.sentence:
                print(ending.sentence, file=sys.stderr)
            code = ending.code
    return code


@contextmanager
def _signals_end_it() -> Iterator[None]:
    heeded = [number for number in _TO_END if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _end) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


class _Words(logging.Formatter):
    """Messages as they are; what is more than information says so first."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


def _configure_logging() -> None:
    """Our own messages from INFO on, those of libraries from WARNING on, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Words("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for room in ("core", "training", "export", "serving", "retraining", "cli", "__main__"):
        logging.getLogger(room).setLevel(logging.INFO)
