"""The pictures of items that wait for a vector: read wherever they are kept, with the digest of what was read.

Left out: decoding and embedding them (`serving.operations.catching_up`, `serving.reembed`).
"""

import hashlib
from typing import NamedTuple

from serving.collection.catalogue import Catalogue
from serving.collection.spaces import Pending
from serving.folders import UnreadableFile
from serving.stored_files import StoredFiles


class Picture(NamedTuple):
    """The bytes of an image file, and their SHA-256."""

    sha256: bytes
    content: bytes


class PendingSources:
    """Reads the pictures of one catalogue's pending items; safe to use from several threads."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._files = StoredFiles()

    def read(self, pending: Pending) -> Picture:
        """The picture as it is now, which may be a newer one than was pending. `UnreadableFile` says why not."""
        if pending.path is None:
            kept = self._catalogue.kept_source(pending.row)
            if kept is None:
                raise UnreadableFile("its picture is no longer in the catalogue")
            return Picture(*kept)
        content = self._files.read(pending.path)
        found = hashlib.sha256(content).digest()
        if found != pending.sha256:
            raise UnreadableFile(f"{pending.path} is no longer the file that was stored: ingest it again")
        return Picture(found, content)
