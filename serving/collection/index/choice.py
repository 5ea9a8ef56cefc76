"""Which index a collection is searched with, as options and the command line name it: `faiss` or `milvus:URI`.

A URI may carry a user and a password, so neither it nor an error about it shows more than the server's address.
Opening the index is in `serving.collection.index.opening`.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

FAISS = "faiss"
_MILVUS = "milvus:"
_SCHEMES = ("http", "https", "tcp")
LOCAL = ".db"  # by this ending pymilvus knows that milvus-lite is meant


@dataclass(frozen=True)
class IndexChoice:
    """`uri` is a Milvus server's address or the path of a milvus-lite folder; "" stands for FAISS."""

    uri: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> "IndexChoice":
        """Read `faiss` or `milvus:URI`. ValueError for anything else, without what may be secret of it."""
        if text == FAISS:
            return cls()
        uri = text.removeprefix(_MILVUS)
        if not text.startswith(_MILVUS) or not (uri.endswith(LOCAL) or _is_address(uri)):
            raise ValueError(
                f"index is {_without_secrets(text)!r}; it must be faiss, milvus:http://HOST:PORT (or https, tcp), or "
                "milvus:FOLDER.db"
            )
        return cls(str(Path(uri).resolve()) if not _is_address(uri) else uri)

    @property
    def local(self) -> bool:
        """Whether it is a milvus-lite folder, which one process at a time can have open."""
        return self.uri.endswith(LOCAL) and not _is_address(self.uri)

    @property
    def shown(self) -> str:
        """What may be logged."""
        return f"Milvus at {_without_secrets(self.uri)}" if self.uri else "FAISS"

    def __str__(self) -> str:
        """The text that `parse` reads, secrets included."""
        return f"{_MILVUS}{self.uri}" if self.uri else FAISS


def index_name(text: str) -> str:
    """An index as command lines take it, a path in it made absolute."""
    try:
        return str(IndexChoice.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _is_address(uri: str) -> bool:
    parts = urlsplit(uri)
    return parts.scheme in _SCHEMES and bool(parts.hostname)


def _without_secrets(uri: str) -> str:
    before, at, after = uri.rpartition("@")
    head = before.partition("//")[0] + "//" if "//" in before else ""
    return f"{head}...@{after}" if at else uri
