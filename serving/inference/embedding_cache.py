"""Embeddings of images that may come again, by the digest of their bytes: the least recently used are dropped first.

A cache belongs to one engine and so to one release: an entry can never answer for another. Each worker has its own.
It is off by default, because it pays only where clients send the same files again.
"""

import hashlib
from collections.abc import Sequence

from cachetools import LRUCache

from serving.inference.backends import Outputs

_OVERHEAD = 400  # bytes of Python objects for each entry


class EmbeddingCache:
    """Holds up to `megabytes` of `Outputs` of single images, (D,) and (C,)."""

    def __init__(self, megabytes: int) -> None:
        self._entries: LRUCache[bytes, Outputs] = LRUCache(megabytes << 20, getsizeof=_size)
        self.hits = 0
        self.misses = 0

    def find(self, images: Sequence[bytes]) -> list[Outputs | None]:
        """The outputs of each image that is known, else None."""
        found = [self._entries.get(_digest(image)) for image in images]
        known = sum(entry is not None for entry in found)
        self.hits += known
        self.misses += len(found) - known
        return found

    def keep(self, image: bytes, outputs: Outputs) -> None:
        """Remember an image's outputs; one that is larger than the whole cache is not kept."""
        if _size(outputs) <= self._entries.maxsize:
            # a copy: a row of a batch would keep the whole batch alive
            logits = outputs.logits.copy() if outputs.logits is not None else None
            self._entries[_digest(image)] = Outputs(outputs.embedding.copy(), logits)

    def describe(self) -> dict[str, int]:
        """Counts since the start, and what is held."""
        return {
            "hits": self.hits,
            "misses": self.misses,
            "images": len(self._entries),
            "bytes": int(self._entries.currsize),
        }


def _digest(image: bytes) -> bytes:
    return hashlib.sha256(image).digest()


def _size(outputs: Outputs) -> int:
    return outputs.embedding.nbytes + (outputs.logits.nbytes if outputs.logits is not None else 0) + _OVERHEAD
