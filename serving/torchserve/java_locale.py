"""The locale of Java: in one of ASCII alone (`LC_ALL=C`) it replaces other characters of paths by question marks.

A worker would then be given a collection that does not exist, and begin it.
"""

import ctypes
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from serving.torchserve.settings import LaunchError

_UTF8 = "C.UTF-8"
_LC_CTYPE_MASK = 1


def locale_for(paths: Iterable[Path | str], environment: Mapping[str, str]) -> dict[str, str]:
    """Variables to add to the environment, for Java to pass these paths on as they are; raises `LaunchError`."""
    odd = next((str(path) for path in paths if not str(path).isascii()), None)
    if odd is None:
        return {}
    try:
        odd.encode()
    except UnicodeEncodeError as error:
        raise LaunchError(f"{odd!a} is not UTF-8, and TorchServe's Java takes no such path: rename it") from error
    present = next((environment[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environment.get(name)), "C")
    if present.lower().replace("-", "").endswith("utf8") and _is_installed(present):
        return {}
    if not _is_installed(_UTF8):
        raise LaunchError(
            f"{odd!a} has characters that TorchServe's Java does not take here: set LC_ALL to a UTF-8 locale"
        )
    return {"LC_ALL": _UTF8}


def _is_installed(name: str) -> bool:
    libc = ctypes.CDLL(None)
    libc.newlocale.restype = ctypes.c_void_p
    found = libc.newlocale(_LC_CTYPE_MASK, os.fsencode(name), None)
    if found:
        libc.freelocale(ctypes.c_void_p(found))
    return bool(found)
