"""Who may read what we make: its owner alone, unless the environment variable SIMCLR_UMASK says otherwise.

It is an octal umask: `SIMCLR_UMASK=007` lets a group read and write, `027` lets it read. Commands set it for all that
they make (`masked`). Collections have their modes whoever makes them, also a program of somebody else's with another
umask.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "SIMCLR_UMASK"
_OWNER_ALONE = 0o077


def file_mask(environment: Mapping[str, str] = os.environ) -> int:
    """The umask under which our processes make files; raises ValueError if SIMCLR_UMASK is none."""
    text = environment.get(VARIABLE, "")
    if not text:
        return _OWNER_ALONE
    try:
        mask = int(text, 8)
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o777 or mask & 0o700:
        raise ValueError(f"{VARIABLE} is {text!r}; it must be an octal umask that leaves the owner all, such as 007")
    return mask


def file_mode() -> int:
    """The mode of a new file."""
    return 0o666 & ~file_mask()


def make_folder(path: Path) -> None:
    """Make a folder that may be there already, and those above it; what the process's own umask is does not matter."""
    mode = 0o777 & ~file_mask()
    try:
        path.mkdir(mode=mode, parents=True)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(mode)


@contextmanager
def masked() -> Iterator[None]:
    """Make files under this umask within the block; it is the whole process's."""
    before = os.umask(file_mask())
    try:
        yield
    finally:
        os.umask(before)
