"""One release's vectors as entities of a Milvus collection, which an alias names, so that a new one can replace it.

An entity is a row's vector as of a write: its key says which row and which write, and it is never changed. So nothing
that is sent twice, late, or by two workers at once does harm; at worst, older entities of a row are superfluous. One
entity is no vector of ours: it says up to which write all of them are present, and so shares their fate. Every read has
Strong consistency: it sees whatever Milvus acknowledged before, to any client.
"""

import logging
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.errors import IndexUnusable
from serving.collection.index.choice import IndexChoice

MOST_FOUND = 16_384  # Milvus finds no more in one search
_STRONG = "Strong"
_POSITION, _NO_ROW = "position", -1
_LINKS, _BUILD_DEPTH = 32, 100
_SECONDS = 60.0
_BYTES_AT_ONCE = 8 << 20  # a message may have 64 MiB
_KEYS_AT_ONCE = 1_000
_FIX_LOCAL = (
    "another process has it open, or it can't be written. A milvus-lite folder is for one process: serve with one "
    "worker, or start `milvus-lite server --data-dir FOLDER.db --host 127.0.0.1 --port 19530` and name "
    "milvus:http://127.0.0.1:19530"
)


class Entities:
    """What is behind the alias `name` of one Milvus. Every method raises `IndexUnusable` where Milvus refuses."""

    def __init__(self, choice: IndexChoice, name: str) -> None:
        self.name = name
        self._shown = choice.shown
        for library in ("pymilvus", "milvus_lite"):  # they print every error that they also raise
            logging.getLogger(library).setLevel(logging.CRITICAL)
        with self._in_our_words("can't be opened", hint=_FIX_LOCAL if choice.local else "is it running?"):
            self._client = MilvusClient(choice.uri, timeout=_SECONDS)

    def exist(self) -> bool:
        """Whether the alias names anything."""
        with self._in_our_words("can't be asked"):
            return bool(self._client.has_collection(self.name, timeout=_SECONDS))

    def load(self) -> None:
        """Have Milvus load the collection, as it must after its own start; does nothing if there is none."""
        if self.exist():
            with self._in_our_words("can't be loaded"):
                self._client.load_collection(self.name, timeout=_SECONDS)

    def position(self) -> int | None:
        """The write up to which everything is present; None if that is not known."""
        if not self.exist():
            return None
        with self._in_our_words("can't be read"):
            found = self._query(f'key == "{_POSITION}"', "seq")
        return int(found[0]["seq"]) if found else None

    def count(self) -> int:
        """How many vectors there are, including superfluous ones."""
        with self._in_our_words("can't be counted"):
            return int(self._query("", "count(*)")[0]["count(*)"]) - 1

    def begin(self, dim: int) -> str:
        """Make a new, empty collection for vectors of `dim` numbers, which the alias does not name yet."""
        fresh = f"{self.name}_{uuid.uuid4().hex[:8]}"
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=48)
        schema.add_field("row", DataType.INT64)
        schema.add_field("seq", DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        index = self._client.prepare_index_params()
        build = {"M": _LINKS, "efConstruction": _BUILD_DEPTH}
        index.add_index("vector", index_type="HNSW", metric_type="IP", params=build)
        with self._in_our_words("can't make a collection"):
            self._client.create_collection(
                fresh, schema=schema, index_params=index, consistency_level=_STRONG, timeout=_SECONDS
            )
        return fresh

    def put(self, rows: Rows, vectors: Vectors, seq: int, *, into: str | None = None) -> None:
        """Send the vectors (N, D) of these rows (N,), which they have as of write `seq`."""
        step = max(1, min(_KEYS_AT_ONCE, _BYTES_AT_ONCE // (4 * vectors.shape[1]))) if len(rows) else 1
        for start in range(0, len(rows), step):
            part = zip(rows[start : start + step].tolist(), vectors[start : start + step], strict=True)
            self._upsert([_entity(f"{row}:{seq}", row, seq, vector) for row, vector in part], into)

    def set_position(self, seq: int, dim: int, *, into: str | None = None) -> None:
        """Record that everything up to write `seq` is present."""
        self._upsert([_entity(_POSITION, _NO_ROW, seq, np.eye(1, dim, dtype=np.float32)[0])], into)

    def remove(self, rows: Rows, before: int) -> None:
        """Remove all entities of these rows as of writes before `before`."""
        for start in range(0, len(rows), _KEYS_AT_ONCE):
            listed = _listed(rows[start : start + _KEYS_AT_ONCE])
            with self._in_our_words("can't remove what was deleted"):
                found = self._query(f"row in {listed} and seq < {before}", "key")
                if found:
                    keys = [one["key"] for one in found]
                    self._client.delete(self.name, ids=keys, timeout=_SECONDS)

    def publish(self, fresh: str) -> None:
        """Let the alias name the collection `fresh`, and drop all that it named before."""
        with self._in_our_words("can't switch to a new collection"):
            self._client.flush(fresh, timeout=_SECONDS)  # only what is flushed gets its index built
            if self._client.has_collection(self.name, timeout=_SECONDS):
                self._client.alter_alias(fresh, self.name, timeout=_SECONDS)
            else:
                self._client.create_alias(fresh, self.name, timeout=_SECONDS)
        self.drop(keep=fresh)

    def drop(self, *, keep: str = "") -> None:
        """Drop the collections that were made here, including what killed rebuilds left, except `keep`."""
        with self._in_our_words("can't drop a collection"):
            if not keep and self._client.has_collection(self.name, timeout=_SECONDS):
                self._client.drop_alias(self.name, timeout=_SECONDS)
            for name in self._client.list_collections(timeout=_SECONDS):
                if name.startswith(f"{self.name}_") and name != keep:
                    self._client.drop_collection(name, timeout=_SECONDS)

    def search(self, queries: Vectors, count: int, *, depth: int, rows: Rows | None = None) -> list[list[int]]:
        """For each query (Q, D) the rows of up to `count` nearest entities, best first; some may not be live.

        `rows` are the only ones allowed. A row may occur twice.
        """
        within = f"row in {_listed(rows)}" if rows is not None else ""
        with self._in_our_words("can't search"):
            found = self._client.search(
                self.name,
                list(np.ascontiguousarray(queries, np.float32)),
                filter=within,
                limit=count,
                output_fields=["row"],
                search_params={"metric_type": "IP", "params": {"ef": max(depth, count)}},
                consistency_level=_STRONG,
                timeout=_SECONDS,
            )
        return [[int(hit["entity"]["row"]) for hit in hits] for hits in found]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _upsert(self, entities: Sequence[dict[str, Any]], into: str | None) -> None:
        with self._in_our_words("did not take vectors"):
            self._client.upsert(into or self.name, list(entities), timeout=_SECONDS)

    def _query(self, within: str, field: str) -> Any:
        return self._client.query(
            self.name, filter=within, output_fields=[field], consistency_level=_STRONG, timeout=_SECONDS
        )

    @contextmanager
    def _in_our_words(self, what_failed: str, *, hint: str = "") -> Iterator[None]:
        """Milvus's errors in our words."""
        try:
            yield
        except (MilvusException, grpc.RpcError) as error:
            more = f"; {hint}" if hint else ""
            reason = error.message if isinstance(error, MilvusException) else type(error).__name__
            raise IndexUnusable(f"{self._shown} {what_failed} ({reason}){more}") from error


def _entity(key: str, row: int, seq: int, vector: Vectors) -> dict[str, Any]:
    return {"key": key, "row": row, "seq": seq, "vector": vector}


def _listed(rows: Iterable[int]) -> str:
    return f"[{','.join(str(int(row)) for row in rows)}]"
