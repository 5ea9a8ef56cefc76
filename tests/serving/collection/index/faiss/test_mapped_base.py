import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np
import pytest

from serving.collection.catalogue.bases import BaseRecord
from serving.collection.catalogue.vectors import Rows
from serving.collection.errors import CompactionError, IndexUnusable
from serving.collection.index.faiss.base_files import BaseFiles
from serving.collection.index.faiss.mapped_base import open_base, publish_base, remove_base
from tests.serving.collection.examples import DAMAGE, RELEASE, start, unit_vectors

COUNT = 300


def published(folder: Path, rows: Rows | None = None, name: str = "one.faiss") -> BaseRecord:
    index = faiss.IndexFlatIP(16)
    index.add(unit_vectors(COUNT))
    record = BaseRecord(RELEASE, name, "", COUNT, 16, 3)
    return publish_base(folder, record, index=index, rows=rows if rows is not None else np.arange(COUNT) * 2)


def is_mapped(name: str) -> bool:
    return any(name in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_a_base_is_mapped_and_finds_positions_of_rows(tmp_path: Path) -> None:
    mapped = open_base(tmp_path, published(tmp_path))
    assert is_mapped("one.faiss")
    assert is_mapped("one.rows.npy")
    assert len(mapped) == COUNT
    assert mapped.positions(np.array([0, 1, 4, 598, 600, -5, 10**12])).tolist() == [0, -1, 2, 299, -1, -1, -1]
    np.testing.assert_array_equal(mapped.vectors(np.array([5, 0])), unit_vectors(COUNT)[[5, 0]])
    scores, positions = mapped.search(unit_vectors(COUNT)[:3], 1, depth=1)
    assert positions.ravel().tolist() == [0, 1, 2]
    np.testing.assert_allclose(scores, 1, atol=1e-6)


def test_positions_are_found_where_the_rows_are_not_in_order(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).permutation(COUNT).astype(np.int64) * 3
    mapped = open_base(tmp_path, published(tmp_path, rows))
    assert (mapped.positions(rows) == np.arange(COUNT)).all()
    assert (mapped.positions(rows + 1) == -1).all()


@pytest.mark.parametrize("part", ["index", "rows"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_base_is_refused(tmp_path: Path, part: str, damage: str) -> None:
    record = published(tmp_path)
    path = tmp_path / record.file
    DAMAGE[damage](path if part == "index" else BaseFiles(path).rows)
    with pytest.raises(IndexUnusable, match=r"one\.faiss (is missing|was altered or torn): compact the collection"):
        open_base(tmp_path, record)


@pytest.mark.parametrize("wrong", [{"count": 299}, {"dim": 8}])
def test_a_base_that_is_not_what_the_catalogue_says_is_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    record = published(tmp_path)
    with pytest.raises(IndexUnusable, match="not what the catalogue says"):
        open_base(tmp_path, BaseRecord(**{**record.__dict__, **wrong}))


def test_a_base_is_never_overwritten(tmp_path: Path) -> None:
    record = published(tmp_path)
    before = (tmp_path / record.file).stat()
    with pytest.raises(AssertionError, match="never overwritten"):
        published(tmp_path)
    assert (tmp_path / record.file).stat() == before


def test_it_is_removed_only_when_nobody_has_it_mapped(tmp_path: Path) -> None:
    record = published(tmp_path)
    path = tmp_path / record.file
    first, second = open_base(tmp_path, record), open_base(tmp_path, record)
    assert not remove_base(path)
    del first
    assert not remove_base(path)
    assert len(second) == COUNT
    del second
    assert remove_base(path)
    assert list(tmp_path.iterdir()) == []
    assert remove_base(path)  # gone already


HOLDER = """
from serving.collection.index.faiss.mapped_base import open_base
from serving.collection.catalogue.bases import BaseRecord
mapped = open_base(Path(sys.argv[1]), BaseRecord(RELEASE, "one.faiss", sys.argv[2], 300, 16, 3))
print("mapped", flush=True)
sys.stdin.read()
"""


def test_another_process_keeps_it_too_until_it_dies(tmp_path: Path) -> None:
    record = published(tmp_path)
    with start(HOLDER, tmp_path, record.sha256) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mapped\n"
        assert not remove_base(tmp_path / record.file)
        os.kill(holder.pid, signal.SIGKILL)
    assert remove_base(tmp_path / record.file)


@contextmanager
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 8 kB; not even the one that pytest may be writing to, so be quick."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_nothing_behind_and_is_told(tmp_path: Path) -> None:
    told = r"one\.faiss could not be written whole: is the disk full\?"
    with small_files(), pytest.raises(CompactionError, match=told):
        published(tmp_path)
    assert list(tmp_path.iterdir()) == []
