"""How a command ends: an exception becomes an exit code and a sentence, never a traceback.

Exit codes: 0 done, 1 an error that the user can mend, 2 wrong usage, 70 a fault of ours, 128 + signal when stopped.
A command may have codes of its own between 3 and 63, which its help names.
"""

import os
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from core.machine.interrupts import Interrupted

FAILED, FAULT = 1, 70


class Ending(NamedTuple):
    """The exit code, and what is said on standard error; nothing if it is empty."""

    code: int
    sentence: str


def ending_of(error: BaseException, *, expected: tuple[type[Exception], ...], resume: str) -> Ending:
    """What an exception means for the person who typed the command."""
    if isinstance(error, BrokenPipeError):
        discard_output()
        return Ending(0, "")
    if isinstance(error, Interrupted):
        return Ending(error.exit_code, _stopped(str(error), resume))
    if isinstance(error, KeyboardInterrupt):
        return Ending(128 + signal.SIGINT, _stopped("stopped", resume))
    if isinstance(error, SystemExit):
        return _exit(error, resume)
    if isinstance(error, expected):
        return Ending(FAILED, f"error: {error}")
    return Ending(FAULT, f"error: {_fault(error)}")


def discard_output() -> None:
    """Send what is still to be printed nowhere, as its reader has gone; else Python would complain as it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def conclude(sentence: str, *, then: str = "", as_json: bool = False, **values: Any) -> None:
    """Close long work: say what came of it, and what to type next; or print `values` as one line of JSON."""
    if as_json:
        from core.files.json_text import json_text  # only here: every command imports this module

        print(json_text(values, default=str))
        return
    print(sentence)
    if then:
        print(f"next: {then}")


def first_few(lines: Iterable[str], most: int, *, rest: str = "") -> Iterator[str]:
    """The first `most` lines, and one that says how many more there are; `rest` says where to find those."""
    remaining = iter(lines)
    yield from islice(remaining, most)
    if more := sum(1 for _ in remaining):
        yield f"(and {more:,} more{f': {rest}' if rest else ''})"


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 image", "1,200 images"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _stopped(what: str, resume: str) -> str:
    return f"{what}: {resume}" if resume else what


def _exit(error: SystemExit, resume: str) -> Ending:
    """`sys.exit` with a sentence is an error, with 128 + signal a stop."""
    if isinstance(error.code, str):
        return Ending(FAILED, error.code)
    code = int(error.code or 0)
    return Ending(code, _stopped("stopped", resume) if code > 128 else "")


def _fault(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"unexpected {type(error).__name__}: {error} ({last.filename}, line {last.lineno}). This is a fault of the "
        "program; run the command again with SIMCLR_TRACEBACK=1 in the environment for the whole story"
    )
