"""Searches of many requests: queries that may share a FAISS call do, and each gets its neighbours as it asked for them.

Functions for use inside a collection's `turn`, so that a filter, the search and the items are of one moment.
Left out: turning images, ids and examples into queries (`serving.operations.queries`).
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from serving.collection.catalogue.filters import Filter, values_of
from serving.collection.catalogue.items import Stored
from serving.collection.catalogue.vectors import Rows
from serving.collection.errors import CollectionError
from serving.operations.failures import failure_of
from serving.operations.opened import OpenCollection
from serving.operations.queries import Query
from serving.operations.showing import include_in_neighbours
from serving.operations.votes import vote
from serving.protocol.messages import Request, RequestError

_DEEPEST_GROUPING = 10_000  # neighbours that are looked through for values not yet seen
_WIDER = 4


class Hit(NamedTuple):
    """An item found, and its score."""

    item: Stored
    score: float


@dataclass(eq=False)
class Search:
    """One query of one request, and what it has found: `hits` best first, of the `depth` best there are."""

    request: Request
    query: Query
    depth: int = 0
    hits: list[Hit] = field(default_factory=list)
    finished: bool = False

    def __post_init__(self) -> None:
        wanted = self.request.offset + self.request.k
        self.depth = (wanted * _WIDER if self.request.group_by else wanted) + len(self.query.without)

    @property
    def together(self) -> Hashable:
        """Searches of which this is the same go into one FAISS call; as text, for 1 == True in Python, not in JSON."""
        return repr(self.request.where), self.request.exact, self.depth.bit_length()

    def take(self, found: Sequence[Hit], *, all_there_is: bool) -> None:
        """Keep what was asked for; go wider if a grouping needs more."""
        wanted = self.request.offset + self.request.k
        hits = [hit for hit in found if hit.item.id not in self.query.without]
        if self.request.min_score is not None:
            enough = [hit for hit in hits if hit.score >= self.request.min_score]
            all_there_is |= len(enough) < len(hits)
            hits = enough
        if self.request.group_by is not None:
            hits = _first_of_each(hits, self.request.group_by)
        self.hits = hits[self.request.offset : wanted]
        if len(hits) >= wanted or all_there_is or self.depth >= _DEEPEST_GROUPING or not self.request.group_by:
            self.finished = True
        else:
            self.depth = min(_WIDER * self.depth, _DEEPEST_GROUPING)


def find_all(collection: OpenCollection, searches: Sequence[Search]) -> list[dict[str, Any] | RequestError]:
    """For each search its result, or why there is none."""
    failures: dict[int, RequestError] = {}
    while pending := [search for search in searches if not search.finished and id(search) not in failures]:
        for group in _groups(pending):
            try:
                _find_together(collection, group)
            except CollectionError as error:
                failures |= {id(search): failure_of(error) for search in group}
    return [failures.get(id(search)) or _result(collection, search) for search in searches]


def _groups(searches: Sequence[Search]) -> Iterator[list[Search]]:
    groups: dict[Hashable, list[Search]] = defaultdict(list)
    for search in searches:
        groups[search.together].append(search)
    yield from groups.values()


def _find_together(collection: OpenCollection, searches: Sequence[Search]) -> None:
    request = searches[0].request
    depth = max(search.depth for search in searches)
    queries = np.stack([search.query.vector for search in searches])
    rows = _rows(collection, request.where)
    found = collection.index.search(queries, depth, rows=rows, exact=request.exact)
    items = collection.catalogue.items.at(found.rows.ravel().tolist())
    total = found.rows.shape[1]
    for search, line, scores in zip(searches, found.rows, found.scores, strict=True):
        pairs = zip(line[: search.depth].tolist(), scores[: search.depth].tolist(), strict=True)
        whole = total < depth and total <= search.depth
        search.take([Hit(items[row], score) for row, score in pairs], all_there_is=whole)


def _rows(collection: OpenCollection, where: Filter | None) -> Rows | None:
    return collection.catalogue.items.rows_matching(where) if where is not None else None


def _first_of_each(hits: Sequence[Hit], key: str) -> list[Hit]:
    """The best hit of each value at `key`; items that have none there are left out."""
    seen: dict[str, Hit] = {}
    for hit in hits:
        if (value := value_at(hit.item, key)) is not None:
            seen.setdefault(repr(value), hit)
    return list(seen.values())


def value_at(item: Stored, key: str) -> Any:
    """The first value of an item at a key; None if it has none."""
    return next(iter(values_of(item, key)), None)


def _result(collection: OpenCollection, search: Search) -> dict[str, Any]:
    request = search.request
    lines = [{"id": hit.item.id, "score": hit.score, "label": hit.item.label} for hit in search.hits]
    if request.group_by is not None:
        for hit, line in zip(search.hits, lines, strict=True):
            line["group"] = value_at(hit.item, request.group_by)
    pairs = [(hit.item, line) for hit, line in zip(search.hits, lines, strict=True)]
    include_in_neighbours(collection, pairs, request.include)
    return {"neighbours": lines} | ({"vote": vote(lines)} if "vote" in request.include else {})
