from pathlib import Path

import numpy as np
import pytest

from core.files.durable import sha256_of
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.errors import CompactionError, IndexUnusable
from serving.collection.index.faiss.base_files import BaseFiles, VectorsWriter, map_vectors
from serving.collection.index.faiss.build import build_base
from serving.collection.index.faiss.kinds import KINDS, Plan
from serving.collection.index.faiss.mapped_base import open_base
from tests.disks import small_disk
from tests.serving.collection.examples import DAMAGE, RELEASE, clustered_vectors, fill, stored, unit_vectors

APPROXIMATE = [name for name, kind in KINDS.items() if kind.approximate]


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    catalogue = open_catalogue(tmp_path / "collection", create=True)
    fill(catalogue, clustered_vectors(300))
    return catalogue


def test_vectors_are_readable_while_they_are_written_and_whole_when_published(tmp_path: Path) -> None:
    vectors, path = unit_vectors(100), tmp_path / "one.f32"
    writer = VectorsWriter(path, 16)
    writer.append(vectors[:30])
    writer.append(vectors[:0])
    np.testing.assert_array_equal(writer.matrix(), vectors[:30])
    writer.append(vectors[30:])
    assert not path.exists()
    assert writer.publish() == sha256_of(path)
    np.testing.assert_array_equal(map_vectors(path, 100, 16), vectors)
    assert [one.name for one in tmp_path.iterdir()] == ["one.f32"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_has_the_vector_of_every_position(catalogue: Catalogue, kind: str) -> None:
    mapped = open_base(catalogue.folder, build_base(catalogue, RELEASE, Plan(kind=kind)))
    rows, vectors = stored(catalogue)
    np.testing.assert_array_equal(mapped.vectors(mapped.positions(rows)), vectors)
    np.testing.assert_array_equal(mapped.matrix[mapped.positions(rows)], vectors)
    maps = Path("/proc/self/maps").read_text()
    assert (BaseFiles(Path(mapped.record.file)).vectors.name in maps) == KINDS[kind].approximate


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("damage", DAMAGE)
def test_vectors_that_were_damaged_make_the_base_unusable(catalogue: Catalogue, kind: str, damage: str) -> None:
    record = build_base(catalogue, RELEASE, Plan(kind=kind))
    DAMAGE[damage](BaseFiles(catalogue.folder / record.file).vectors)
    with pytest.raises(IndexUnusable, match=r"\.faiss (is missing|was altered or torn): compact the collection"):
        open_base(catalogue.folder, record)


@pytest.mark.parametrize("kilobytes", [4, 100, 200])
def test_a_disk_that_fills_up_while_vectors_are_written_leaves_nothing(tmp_path: Path, kilobytes: int) -> None:
    with small_disk(tmp_path / "disk", 1_200_000) as folder:
        catalogue = open_catalogue(folder, create=True)
        fill(catalogue, unit_vectors(600, 64))
        before = {path.name for path in folder.iterdir()}
        free = 4096 * (kilobytes // 4)
        room = 1_200_000 - sum(path.stat().st_blocks * 512 for path in folder.iterdir()) - free
        (folder / "ballast").write_bytes(bytes(max(0, room)))
        with pytest.raises(CompactionError, match="could not be written whole: is the disk full"):
            build_base(catalogue, RELEASE, Plan(kind="hnsw"))
        assert {path.name for path in folder.iterdir()} - {"ballast"} == before
