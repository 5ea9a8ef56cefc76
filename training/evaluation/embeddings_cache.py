"""Embeddings kept on disk, so that another task or another run does not embed again.

    NAME.npy    float32 (N, D), memory-mapped when read
    NAME.json   the key (what decided the embeddings) and the SHA-256 of NAME.npy, written last

An array that is cut short, changed, or of another key counts as missing. The folder may grow without limit.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.files.durable import publish_file, publish_text, sha256_of
from core.files.json_text import json_text

Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddingsCache:
    """The embeddings in `folder`, which is made when something is first kept."""

    folder: Path

    def get(self, name: str, key: dict[str, Any], compute: Callable[[], Embeddings]) -> Embeddings:
        """The embeddings of `key`, (N, D): read if they are here, whole, else computed and kept.

        `key` is JSON. One `name` holds one key at a time. Raises OSError if they can't be kept, on a full disk.
        """
        found = self._read(name, key)
        if found is not None:
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        h = compute()
        self._facts(name).unlink(missing_ok=True)
        publish_file(self._array(name), lambda partial: _write(partial, h))
        facts = {"key": key, "sha256": sha256_of(self._array(name)), "shape": h.shape}
        publish_text(self._facts(name), json_text(facts, indent=1))
        return _mapped(self._array(name))

    def drop(self, prefix: str) -> None:
        """Remove whatever is kept under a name that begins so."""
        for path in self.folder.glob(f"{prefix}*"):
            path.unlink(missing_ok=True)

    def _read(self, name: str, key: dict[str, Any]) -> Embeddings | None:
        try:
            facts = json.loads(self._facts(name).read_text())
            if facts["key"] != json.loads(json_text(key)) or facts["sha256"] != sha256_of(self._array(name)):
                return None
            h = _mapped(self._array(name))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return h if h.dtype == np.float32 and h.ndim == 2 else None

    def _array(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _facts(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _mapped(path: Path) -> Embeddings:
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _write(path: Path, h: Embeddings) -> None:
    with open(path, "wb") as file:  # np.save would put .npy behind a name that has another suffix
        np.save(file, h, allow_pickle=False)
