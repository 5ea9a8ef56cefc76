"""Compaction: a new base when too much was written since the last one, and clearing away what no one uses.

There is one at a time in a collection, across processes: it holds a lock file. The new base is whole, synced and read
back before the catalogue names it. Killed at any moment, compaction leaves the old base in use, and at most some files
that the next one removes. Old bases are removed once no process has them mapped. Searches go on meanwhile.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.collection.catalogue.interface import Catalogue
from serving.collection.errors import CompactionError
from serving.collection.index.faiss.base_files import INDEX, ROWS, SEAL, VECTORS
from serving.collection.index.faiss.build import build_base
from serving.collection.index.faiss.kinds import Plan
from serving.collection.index.faiss.mapped_base import remove_base
from serving.collection.index.interface import Sizes
from serving.collection.locks import collection_lock

LOCK_NAME = "compaction.lock"
DEFAULT_PLAN = Plan()


@dataclass(frozen=True)
class Policy:
    """When to compact: at this share of the base, but not below `least` changes, and at `most` at the latest.

    Every search compares the changed vectors in full. On a base of 50,000 vectors of 2,048 numbers one search took
    0.4 ms of a core with 1,000 of them, 1.5 ms with 5,000, 5.2 ms with 20,000 and 14.6 ms with 50,000.
    """

    share: float = 0.1
    least: int = 1_000
    most: int = 20_000

    def due(self, sizes: Sizes) -> bool:
        """Whether enough has changed since the base was built."""
        changed = sizes.delta + sizes.dead
        return changed >= min(max(self.least, self.share * sizes.base), self.most)


DEFAULT_POLICY = Policy()


def compact(catalogue: Catalogue, release: str, plan: Plan = DEFAULT_PLAN, *, reserve_bytes: int = 64 << 20) -> bool:
    """Build and name a new base for everything written so far, and clear away; False if another process is compacting.

    `reserve_bytes` of the disk are to stay free. Raises `CompactionError`; the base before it then stays in use.
    """
    with alone(catalogue.folder) as only:
        if not only:
            return False
        _clear(catalogue)
        census = catalogue.vectors.census(release)
        if len(census.rows):
            _check_room(catalogue, plan, count=len(census.rows), dim=census.dim, reserve=reserve_bytes)
            catalogue.bases.put(build_base(catalogue, release, plan))
        else:
            catalogue.bases.drop(release)
        _clear(catalogue)
    return True


def ensure_base(
    catalogue: Catalogue, release: str, plan: Plan = DEFAULT_PLAN, *, policy: Policy = DEFAULT_POLICY
) -> None:
    """Before a collection is served: build a base if it has none and a worker would have to load everything instead.

    Waits while another process compacts. Raises `CompactionError`.
    """
    while catalogue.bases.get(release) is None and policy.due(Sizes(0, 0, len(catalogue.vectors.census(release).rows))):
        if not compact(catalogue, release, plan):
            wait_for_another(catalogue.folder)


def clear(catalogue: Catalogue) -> list[str]:
    """Remove bases that nobody uses, and what a killed compaction left; returns the names of those that must stay."""
    with alone(catalogue.folder) as only:
        return _clear(catalogue) if only else []


def under_way(folder: Path) -> bool:
    """Whether some process is compacting the collection now."""
    with alone(folder) as only:
        return not only


def wait_for_another(folder: Path) -> None:
    """Return when no process compacts the collection."""
    with collection_lock(folder / LOCK_NAME):
        pass


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether this is the only compaction of the collection; the system frees the lock of a process that dies.

    Raises `CatalogueReadOnly` where there can be none.
    """
    with collection_lock(folder / LOCK_NAME, wait=False) as only:
        yield only


def _clear(catalogue: Catalogue) -> list[str]:
    """Only while the lock is held, so that no file here is being written."""
    folder, named = catalogue.folder, catalogue.bases.files()
    for suffix in (INDEX, ROWS, VECTORS, SEAL):
        for left in folder.glob(f".*{suffix}.partial"):
            left.unlink(missing_ok=True)
        for beside in folder.glob(f"*{suffix}"):
            index = beside.with_name(beside.name.removesuffix(suffix) + INDEX)
            if not index.exists():
                remove_base(index)
    unnamed = [path for path in folder.glob(f"*{INDEX}") if path.name not in named]
    return [path.name for path in unnamed if not remove_base(path)]


def _check_room(catalogue: Catalogue, plan: Plan, *, count: int, dim: int, reserve: int) -> None:
    kind = plan.choose(count)
    vectors = 4 * count * dim if kind.approximate else 0
    needed = int(1.1 * kind.bytes_on_disk(count, dim)) + vectors + 8 * count + reserve
    free = shutil.disk_usage(catalogue.folder).free
    if free < needed:
        raise CompactionError(
            f"{catalogue.folder} has {free >> 20} MiB free; a new base of {count} vectors of {dim} numbers needs "
            f"{needed >> 20} MiB, of which {reserve >> 20} MiB are to stay free: make room first"
        )
