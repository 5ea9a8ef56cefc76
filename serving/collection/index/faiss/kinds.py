"""The kinds of FAISS index that a base may be: how each is made and searched, and how much room it takes.

- `exact`: every vector compared, in float32. Nothing beats it up to tens of thousands.
- `hnsw`: a graph over 8-bit codes; fast and accurate, slow to build.
- `ivf`: cells over 8-bit codes; built several times faster, for the largest collections.
- `ivf_rabitq`: cells over 1-bit codes (RaBitQ); a seventh of their memory, and faster. Its codes tell the best from the
  rest only roughly, so more candidates are scored exactly.

All are inner product on unit vectors, and all can be mapped from their file. How deep a search goes is given with
each search: an index is shared, and never changed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from serving.collection.catalogue.vectors import Vectors

# FAISS declares types for only some of its classes, and for only some of their members.
NativeIndex: TypeAlias = Any
Selector: TypeAlias = Any
Settings: TypeAlias = Any
FEWEST_APPROXIMATE = 100  # with fewer there is nothing to measure recall on
_LINKS = 32
_QUERY_BITS = 4  # a number, of a query whose codes have one; 8 find no more and take longer
_CODE_SAMPLE = 16_384  # vectors that the 8-bit codes are learnt from


@dataclass(frozen=True)
class Plan:
    """What to build: a kind, or by size ("auto"), and the recall@10 that its search depth must reach."""

    kind: str = "auto"
    recall_target: float = 0.955
    exact_up_to: int = 50_000
    graph_up_to: int = 2_000_000
    held_out: int = 1_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("auto", *KINDS):
            raise ValueError(f"kind is {self.kind!r}; accepted: auto, {', '.join(KINDS)}")
        if not 0.0 < self.recall_target <= 1.0:
            raise ValueError(f"recall_target is {self.recall_target}; it must be above 0 and at most 1")

    def choose(self, count: int) -> "IndexKind":
        """The kind of index for `count` vectors."""
        if count < FEWEST_APPROXIMATE:
            return EXACT
        if self.kind != "auto":
            return KINDS[self.kind]
        if count <= self.exact_up_to:
            return EXACT
        return GRAPH if count <= self.graph_up_to else CELLS


@dataclass(frozen=True)
class IndexKind:
    """One kind of index, as the functions in which kinds differ; all take the number of vectors before D.

    `depth` bounds a search (efSearch, nprobe). It starts at `shallowest`, or at `depth_for(candidates)` if that is
    more, and ends at `deepest(index)`. `candidates(k)` is how many rows a search scores exactly to return the k best.
    """

    name: str
    approximate: bool
    empty: Callable[[int, int], NativeIndex]
    bytes_on_disk: Callable[[int, int], int]
    training_size: Callable[[int], int]
    shallowest: int
    depth_for: Callable[[int], int]
    deepest: Callable[[NativeIndex], int]
    parameters: Callable[[int, Selector | None], Settings | None]
    candidates: Callable[[int], int]

    def depths(self, index: NativeIndex) -> Iterator[int]:
        """Depths to try, from the least to the deepest, each about a quarter more than the one before."""
        depth = self.shallowest
        while depth < self.deepest(index):
            yield depth
            depth += max(1, depth // 4)
        yield self.deepest(index)

    def search(
        self, index: NativeIndex, queries: Vectors, *, count: int, depth: int, selector: Selector | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and positions (Q, count) of the nearest of those that `selector` allows; -1 where there is none."""
        settings = self.parameters(depth, selector)
        scores, positions = index.search(np.ascontiguousarray(queries), count, params=settings)
        return scores, positions


def selector_of(mask: NDArray[np.bool_]) -> Selector:
    """What keeps a search to the positions where `mask` (N,) is true."""
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))  # type: ignore[call-arg, arg-type]


def _settings(name: str, selector: Selector | None, **depth: int) -> Settings:
    return getattr(faiss, name)(sel=selector, **depth)


def _cells(count: int) -> int:
    return max(1, min(int(4 * count**0.5), count // 39))  # FAISS wants 39 vectors to learn a cell from


def _few_more(k: int) -> int:
    return k + max(5, k // 2)  # 8-bit codes put few of the best any lower


EXACT = IndexKind(
    name="exact",
    approximate=False,
    empty=lambda count, dim: faiss.IndexFlatIP(dim),
    bytes_on_disk=lambda count, dim: count * dim * 4,
    training_size=lambda count: 0,
    shallowest=1,
    depth_for=lambda candidates: 1,
    deepest=lambda index: 1,
    parameters=lambda depth, selector: _settings("SearchParameters", selector) if selector is not None else None,
    candidates=_few_more,
)
GRAPH = IndexKind(
    name="hnsw",
    approximate=True,
    empty=lambda count, dim: faiss.index_factory(dim, f"HNSW{_LINKS},SQ8", faiss.METRIC_INNER_PRODUCT),
    bytes_on_disk=lambda count, dim: count * (dim + 4 * (2 * _LINKS + _LINKS // 16) + 16),
    training_size=lambda count: min(count, _CODE_SAMPLE),
    shallowest=16,
    depth_for=lambda candidates: candidates,
    deepest=lambda index: int(index.ntotal),
    parameters=lambda depth, selector: _settings("SearchParametersHNSW", selector, efSearch=depth),
    candidates=_few_more,
)
CELLS = IndexKind(
    name="ivf",
    approximate=True,
    empty=lambda count, dim: faiss.index_factory(dim, f"IVF{_cells(count)},SQ8", faiss.METRIC_INNER_PRODUCT),
    bytes_on_disk=lambda count, dim: count * (dim + 8) + _cells(count) * (dim * 4 + 16),
    training_size=lambda count: min(count, max(_CODE_SAMPLE, 64 * _cells(count))),
    shallowest=1,
    depth_for=lambda candidates: 1,
    deepest=lambda index: int(index.nlist),
    parameters=lambda depth, selector: _settings("SearchParametersIVF", selector, nprobe=depth),
    candidates=_few_more,
)
BITS = IndexKind(
    name="ivf_rabitq",
    approximate=True,
    empty=lambda count, dim: faiss.index_factory(dim, f"IVF{_cells(count)},RaBitQ", faiss.METRIC_INNER_PRODUCT),
    bytes_on_disk=lambda count, dim: count * (-(-dim // 8) + 8 + 8) + _cells(count) * (dim * 4 + 16),
    training_size=CELLS.training_size,
    shallowest=1,
    depth_for=lambda candidates: 1,
    deepest=lambda index: int(index.nlist),
    parameters=lambda depth, selector: _settings("IVFRaBitQSearchParameters", selector, nprobe=depth, qb=_QUERY_BITS),
    candidates=lambda k: max(50, 5 * k),
)
KINDS: dict[str, IndexKind] = {kind.name: kind for kind in (EXACT, GRAPH, CELLS, BITS)}
