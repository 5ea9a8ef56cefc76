"""How far long work is: a bar where somebody watches, else a line now and then."""

import sys

from tqdm import tqdm

_LINE_SECONDS = 30.0


def progress_bar(total: int, *, done: int = 0) -> "tqdm[None]":
    """A bar on standard error that counts embedded images up to `total`, of which `done` were before it began."""
    seconds = 0.1 if sys.stderr.isatty() else _LINE_SECONDS
    return tqdm(total=total, initial=done, desc="embed", unit=" images", mininterval=seconds)
