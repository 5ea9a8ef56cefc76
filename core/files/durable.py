"""Files that exist whole or not at all, and their digests: write under another name, sync, rename, sync the folder."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path


def publish_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place of `path` for good.

    If `write` raises, the temporary file is removed, `path` stays as it was, and the error goes on.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        sync(partial)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)
    sync(path.parent)


def publish_text(path: Path, text: str) -> None:
    """Put a text file (UTF-8) in place of `path`, whole or not at all."""
    publish_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def publish_folder(partial: Path, path: Path) -> None:
    """Sync everything in the folder `partial` and rename it to `path`, which must not exist."""
    for folder, _, files in os.walk(partial):
        for name in files:
            sync(Path(folder, name))
        sync(Path(folder))
    os.rename(partial, path)
    sync(path.parent)


def sha256_of(path: Path | str) -> str:
    """Hex SHA-256 of a file, read in chunks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
