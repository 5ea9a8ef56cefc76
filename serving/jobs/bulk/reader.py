"""Read what `simclr bulk` wrote, a shard at a time.

for shard in read("embeddings"):
    shard.ids, shard.embeddings
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from serving.jobs.bulk.errors import BulkError
from serving.jobs.bulk.job import read_job
from serving.jobs.bulk.shards import ShardFiles, finished_shard


class Shard(NamedTuple):
    """`ids` (n,) and `embeddings` (n, D), memory-mapped, belong together; `table` also has the unreadable images."""

    ids: list[str]
    embeddings: NDArray[Any]
    table: Any


def read(folder: Path | str, *, verify: bool = False) -> Iterator[Shard]:
    """The shards of a finished job, in order; `verify` checks their digests first.

    Raises `BulkError` if `folder` holds no job, or at the first shard that is not finished.
    """
    out = Path(folder)
    job = read_job(out, verify=verify)
    for number in range(job.shards):
        if finished_shard(out, number, verify=verify) is None:
            raise BulkError(f"shard {number} of {job.shards} in {out} is not finished: run `simclr bulk` again")
        yield _shard(ShardFiles.of(out, number))


def _shard(files: ShardFiles) -> Shard:
    table = pq.read_table(files.parquet)
    readable = table.filter(pc.is_valid(table["row"]))
    # an empty file can't be mapped
    embeddings = np.load(files.npy, mmap_mode="r" if len(readable) else None, allow_pickle=False)
    return Shard(readable["id"].to_pylist(), embeddings, table)
