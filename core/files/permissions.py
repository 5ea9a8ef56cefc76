"""Who may read what we make: its owner alone, unless the environment variable SIMCLR_UMASK says otherwise.

It is an octal umask: `SIMCLR_UMASK=007` lets a group read and write, `027` lets it read.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

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


@contextmanager
def masked() -> Iterator[None]:
    """Make files under this umask within the block; it is the whole process's."""
    before = os.umask(file_mask())
    try:
        yield
    finally:
        os.umask(before)
