"""Searches of many requests: queries share a call of the index where they can, and each gets what it asked for.

Functions for use inside a collection's `turn`, so that a filter, the search and the items are of one moment.
`serving.operations.queries` turns images, ids and examples into queries.
"""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from serving.collection.catalogue.filters import Filter, values_of
from serving.collection.catalogue.items import Stored
from serving.collection.errors import CollectionError
from serving.collection.index.scoring import TOLERANCE
from serving.operations.exchange import Exchange
from serving.operations.failures import failure_of
from serving.operations.opened import OpenCollection
from serving.operations.queries import Query, Vector, queries_of
from serving.operations.showing import include_in_neighbours
from serving.operations.sizes import check_neighbours
from serving.operations.votes import vote
from serving.protocol.messages import Failure, RequestError
from serving.protocol.operations import SearchRequest

_DEEPEST_GROUPING = 10_000  # neighbours that are looked through for values not yet seen
_WIDER = 4
_TO_VOTE = SearchRequest(include=frozenset({"vote"}))  # what a classify with a vote looks for


class Hit(NamedTuple):
    """An item found, and its score."""

    item: Stored
    score: float


@dataclass(eq=False)
class Lookup:
    """One query of one request, and what it has found: `hits` best first, of the `depth` best there are."""

    request: SearchRequest
    query: Query
    where: Filter | None = None
    depth: int = 0
    hits: list[Hit] = field(default_factory=list)
    finished: bool = False
    result: dict[str, Any] | Failure | None = None

    def __post_init__(self) -> None:
        wanted = self.request.offset + self.request.k
        self.depth = (wanted * _WIDER if self.request.group_by else wanted) + len(self.query.without)

    @property
    def together(self) -> Hashable:
        """Lookups with the same value share one call of the index. A filter counts as text, for 1 == True in Python."""
        return repr(self.where), self.request.exact, self.depth.bit_length()

    @cached_property
    def _digest(self) -> bytes | None:
        """The SHA-256 of the image that is looked for."""
        return hashlib.sha256(self.query.image).digest() if self.query.image is not None else None

    def take(self, found: Sequence[Hit], *, all_there_is: bool) -> None:
        """Keep what was asked for; go wider if a grouping needs more."""
        wanted = self.request.offset + self.request.k
        hits = self._with_the_same_at_1([hit for hit in found if hit.item.id not in self.query.without])
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

    def _with_the_same_at_1(self, hits: list[Hit]) -> list[Hit]:
        """The very image that is looked for scores 1, though its embedding may differ in the last digits."""
        near = sum(1 - TOLERANCE <= hit.score < 1 for hit in hits)
        if not near or self._digest is None:
            return hits
        same = [hit._replace(score=1.0) if hit.item.source.sha256 == self._digest else hit for hit in hits]
        return sorted(same, key=lambda hit: -hit.score)


def find_all(
    collection: OpenCollection, exchanges: Sequence[Exchange[Any]], stored: Mapping[str, Vector], *, dim: int
) -> None:
    """Search for every query of these exchanges; `found` has for each its result, or why there is none.

    `stored` has the embeddings (D,) of the ids that are asked about, `dim` is D.
    """
    lookups: list[Lookup] = []
    for one in exchanges:
        request = one.request if isinstance(one.request, SearchRequest) else _TO_VOTE
        queries = queries_of(one, stored, dim=dim)
        one.found = [query if isinstance(query, ValueError) else Lookup(request, query, one.where) for query in queries]
        lookups += [query for query in one.found if isinstance(query, Lookup)]
    while pending := [lookup for lookup in lookups if not lookup.finished]:
        for group in _groups(pending):
            try:
                _find_together(collection, group)
            except CollectionError as error:
                for lookup in group:
                    lookup.finished, lookup.result = True, failure_of(error)
    for one in exchanges:
        one.found = _results(collection, one, dim)


def _results(collection: OpenCollection, one: Exchange[Any], dim: int) -> list[Any]:
    """For each query of a request its result, or why there is none; one reason for all where they are too large."""
    hits = (hit.item for query in one.found if isinstance(query, Lookup) for hit in query.hits)
    try:
        check_neighbours(hits, one.request.included, dim=dim)
    except RequestError as error:
        return [error] * len(one.found)
    return [_result(collection, query) if isinstance(query, Lookup) else query for query in one.found]


def _groups(lookups: Iterable[Lookup]) -> Iterable[list[Lookup]]:
    groups: dict[Hashable, list[Lookup]] = defaultdict(list)
    for lookup in lookups:
        groups[lookup.together].append(lookup)
    return groups.values()


def _find_together(collection: OpenCollection, lookups: Sequence[Lookup]) -> None:
    first = lookups[0]
    depth = max(lookup.depth for lookup in lookups)
    vectors = np.stack([lookup.query.vector for lookup in lookups])
    rows = collection.catalogue.items.rows_matching(first.where) if first.where is not None else None
    found = collection.index.search(vectors, depth, rows=rows, exact=first.request.exact)
    items = collection.catalogue.items.at(found.rows.ravel().tolist())
    total = found.rows.shape[1]
    for lookup, line, scores in zip(lookups, found.rows, found.scores, strict=True):
        pairs = zip(line[: lookup.depth].tolist(), scores[: lookup.depth].tolist(), strict=True)
        whole = total < depth and total <= lookup.depth
        lookup.take([Hit(items[row], score) for row, score in pairs], all_there_is=whole)


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


def _result(collection: OpenCollection, lookup: Lookup) -> dict[str, Any] | Failure:
    if lookup.result is not None:
        return lookup.result
    request = lookup.request
    lines = [{"id": hit.item.id, "score": hit.score, "label": hit.item.label} for hit in lookup.hits]
    if request.group_by is not None:
        for hit, line in zip(lookup.hits, lines, strict=True):
            line["group"] = value_at(hit.item, request.group_by)
    pairs = [(hit.item, line) for hit, line in zip(lookup.hits, lines, strict=True)]
    include_in_neighbours(collection, pairs, request.include)
    return {"neighbours": lines} | ({"vote": vote(lines)} if "vote" in request.include else {})
