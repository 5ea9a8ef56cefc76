"""A folder as `serving.jobs.bulk` writes it, with vectors that lie as embeddings do: near one of several centres."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.serving.collection.examples import clustered_vectors


def write_embeddings(folder: Path, *, stored: int, queries: int, dim: int = 32) -> Path:
    """Two shards; ids of queries are in a folder called test."""
    folder.mkdir(parents=True)
    vectors = clustered_vectors(stored + queries, dim, clusters=40)
    names = [f"some/train/a/{n}.jpg" for n in range(stored)] + [f"some/test/a/{n}.jpg" for n in range(queries)]
    for shard, rows in enumerate(np.array_split(np.arange(len(names)), 2)):
        np.save(folder / f"shard-{shard:06}.npy", vectors[rows])
        pq.write_table(pa.table({"id": [names[row] for row in rows]}), folder / f"shard-{shard:06}.parquet")
    return folder
