"""Recall and rate of each party of `benchmarks.search.search`, in turn, so that other load falls on all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter

import numpy as np

from benchmarks.search.parties import Party
from benchmarks.tools.turns import in_turn, medians
from serving.collection.catalogue.vectors import Rows, Vectors

K = 10
BATCH = 100
_SINGLES = 200
_RECALL_ENOUGH = 0.97  # beyond which no greater depth is tried


@dataclass(frozen=True)
class Point:
    """One party at one depth: its recall@10, and microseconds a query in batches of 100 and one at a time.

    No threads: as many as it takes by itself.
    """

    party: str
    threads: int
    depth: int
    recall: float
    batch_us: float
    single_us: float | None


def measure(
    parties: Sequence[Party], queries: Vectors, truth: Rows, *, threads: Sequence[int], rounds: int
) -> list[Point]:
    """Every party at its depths, up to the first that reaches recall 0.97, with `threads` threads."""
    points = [point for party in parties if party.slow for point in _once(party, queries[:BATCH], truth[:BATCH])]
    for count in threads:
        settings = [
            (party, depth, recall)
            for party in parties
            if not party.slow
            for depth, recall in _recalls(party, queries, truth, threads=count)
        ]
        turns = {
            f"{party.name} {depth}": partial(_batches, party, queries, depth, count) for party, depth, _ in settings
        }
        batches = medians(in_turn(turns, rounds))
        for party, depth, recall in settings:
            single = median(_single(party, queries, depth, count) for _ in range(3))
            points.append(Point(party.name, count, depth, recall, batches[f"{party.name} {depth}"], single))
    return points


def _once(party: Party, queries: Vectors, truth: Rows) -> list[Point]:
    points = []
    for depth, recall in _recalls(party, queries, truth, threads=0):
        points.append(Point(party.name, 0, depth, recall, _batches(party, queries, depth, 0), None))
    return points


def recall_of(found: Rows, truth: Rows) -> float:
    """The share of the true ones (Q, k) that were found."""
    return float(np.mean([np.isin(best, line).mean() for best, line in zip(truth, found, strict=True)]))


def cheapest(points: Sequence[Point], party: str, threads: int, recall: float) -> Point | None:
    """The party's point of least time a query in batches that has at least that recall."""
    enough = [one for one in points if one.party == party and one.threads == threads and one.recall >= recall]
    return min(enough, key=lambda one: one.batch_us, default=None)


def table(points: Sequence[Point]) -> str:
    """All points as text."""
    lines = [f"{'':<14}{'threads':>8}{'depth':>7}{'recall@10':>11}{'batch, us':>11}{'batch QPS':>11}{'one QPS':>10}"]
    for one in points:
        single = f"{1e6 / one.single_us:>10,.0f}" if one.single_us is not None else f"{'-':>10}"
        line = f"{one.party:<14}{one.threads:>8}{one.depth:>7}{one.recall:>11.4f}{one.batch_us:>11,.1f}"
        lines.append(f"{line}{1e6 / one.batch_us:>11,.0f}{single}")
    return "\n".join(lines)


def _recalls(party: Party, queries: Vectors, truth: Rows, *, threads: int) -> list[tuple[int, float]]:
    found: list[tuple[int, float]] = []
    for depth in party.depths:
        answers = np.concatenate([party.search(part, K, depth, threads) for part in _parts(queries)])
        found.append((depth, recall_of(answers, truth)))
        if found[-1][1] >= _RECALL_ENOUGH:
            break
    return found


def _batches(party: Party, queries: Vectors, depth: int, threads: int) -> float:
    parts = _parts(queries)
    start = perf_counter()
    for part in parts:
        party.search(part, K, depth, threads)
    return (perf_counter() - start) / len(queries) * 1e6


def _single(party: Party, queries: Vectors, depth: int, threads: int) -> float:
    some = queries[:_SINGLES]
    start = perf_counter()
    for at in range(len(some)):
        party.search(some[at : at + 1], K, depth, threads)
    return (perf_counter() - start) / len(some) * 1e6


def _parts(queries: Vectors) -> list[Vectors]:
    return [queries[at : at + BATCH] for at in range(0, len(queries), BATCH)]
