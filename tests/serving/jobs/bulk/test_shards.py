"""A shard's files: deterministic, finished only as a whole, and checked."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from serving.jobs.bulk.records import ImageRecord
from serving.jobs.bulk.shards import ShardContent, ShardFiles, finished_shard, publish_shard
from tests.serving.jobs.conftest import content

RECORDS = [
    ImageRecord("a.png", "/x/a.png", "aa", 5),
    ImageRecord("b.png", "/x/b.png", "bb", 6, "broken"),
    ImageRecord("odd\udcff.png", "/x/odd\udcff.png", None, None, "gone: odd\udcff.png"),
    ImageRecord("c.png", "/x/c.png", "cc", 7),
]


def publish(out: Path, embeddings: np.ndarray, records: list[ImageRecord]) -> ShardFiles:
    out.mkdir(exist_ok=True)
    publish_shard(out, 12, ShardContent(embeddings, records, "a runtime"))
    return ShardFiles.of(out, 12)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_written_is_read(tmp_path: Path, dtype: str) -> None:
    embeddings = np.arange(6, dtype=dtype).reshape(2, 3)
    files = publish(tmp_path, embeddings, RECORDS)
    found = np.load(files.npy)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, embeddings)
    table = pq.read_table(files.parquet).to_pylist()
    assert [row["row"] for row in table] == [0, None, None, 1]
    assert table[1] == {"row": None, "id": "b.png", "source": "/x/b.png", "sha256": "bb", "bytes": 6, "error": "broken"}
    assert table[2]["id"] == r"odd\xff.png"
    facts = finished_shard(tmp_path, 12, verify=True)
    assert facts is not None
    assert (facts.images, facts.embedded, facts.unreadable, facts.runtime) == (4, 2, 2, "a runtime")


def test_the_same_shard_is_the_same_bytes(tmp_path: Path) -> None:
    for out in ("one", "two"):
        publish(tmp_path / out, np.ones((2, 3), np.float32), RECORDS)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_shard_without_a_readable_image_has_no_rows(tmp_path: Path) -> None:
    files = publish(tmp_path, np.empty((0, 3), np.float32), RECORDS[1:3])
    assert np.load(files.npy).shape == (0, 3)


def test_a_shard_is_finished_as_a_whole(tmp_path: Path) -> None:
    files = publish(tmp_path, np.ones((2, 3), np.float32), RECORDS)
    assert finished_shard(tmp_path, 13) is None
    original = files.npy.read_bytes()
    files.npy.write_bytes(original[:-1] + b"\0")
    assert finished_shard(tmp_path, 12) is not None
    assert finished_shard(tmp_path, 12, verify=True) is None
    files.npy.write_bytes(original[:-1])
    assert finished_shard(tmp_path, 12) is None
    files.npy.unlink()
    assert finished_shard(tmp_path, 12) is None
    files.npy.write_bytes(original)
    files.facts.write_text("{")
    assert finished_shard(tmp_path, 12) is None
