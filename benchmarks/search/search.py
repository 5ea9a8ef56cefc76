"""Search of a collection beside FAISS used bare on the same index, and beside other libraries: recall against rate.

    python -m benchmarks.search.search --embeddings EMBEDDED [--quick] [--large 1000000] [--work FOLDER]

EMBEDDED is what `simclr bulk IMAGES --out EMBEDDED` wrote; queries are real images that are not stored.
Two collections are filled and compacted: one of the real vectors, one of `--large` grown from them
(`benchmarks.tools.embeddings`). Everyone searches at many depths, of which the cheapest that reaches recall@10 0.95 is
their figure; the recall at the depth that was chosen when the base was built is printed beside it. All this happens in
one process, in turn. Then a new process shows the time to the first search, and two show what they share in memory. At
last the smaller collection is searched behind TorchServe, one search at a time (`benchmarks.search.http`). `--work`
keeps the collections for the next run. Prints tables and a last line of JSON. `benchmarks.serving.serving` measures
load over HTTP.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.search.http import HttpFigures, over_http
from benchmarks.search.measure import K, Point, cheapest, measure, recall_of, table
from benchmarks.search.parties import PEERS, Party, bare_faiss, ours, truth_of
from benchmarks.search.workers import first_search, two_workers
from benchmarks.tools.command import Figures, benchmark
from benchmarks.tools.embeddings import Embeddings, grown, load_embeddings, nearest
from benchmarks.tools.filled import RELEASE, fill
from core.command_line.command import main
from serving.collection.catalogue.bases import BaseRecord
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.vectors import Vectors
from serving.collection.index.faiss.base_files import BaseFiles, read_vectors
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.kinds import KINDS, Plan
from serving.collection.index.faiss.mapped_base import open_base

logger = logging.getLogger(__name__)
RECALL = 0.95
_PART = 8192


@dataclass(frozen=True, eq=False)
class Subject:
    """One collection to measure: its vectors are `stored` followed by grown ones, `count` in all."""

    folder: Path
    count: int
    embeddings: Embeddings


def prepare(subject: Subject, kind: str) -> tuple[Catalogue, BaseRecord]:
    """The collection, filled and with a base of the kind; what is there from an earlier run is used."""
    catalogue = fill(subject.folder, _parts(subject), count=subject.count)
    base = catalogue.bases.get(RELEASE)
    if base is None or base.count != subject.count or base.kind != kind:
        logger.info("building a base of %d vectors", subject.count)
        compact(catalogue, RELEASE, Plan(kind=kind))
        base = catalogue.bases.get(RELEASE)
    assert base is not None
    logger.info("%s", base)
    return catalogue, base


def compare(subject: Subject, options: argparse.Namespace, *, peers: Sequence[str], work: Path) -> dict[str, Any]:
    """Ours, bare FAISS and peers on one collection: every point, and the ratios of the cheapest that reach 0.95.

    Peers are for collections of real vectors only, which are in memory.
    """
    catalogue, base = prepare(subject, options.kind)
    mapped = open_base(subject.folder, base)
    truth = (
        mapped.rows[
            truth_of(
                subject.embeddings.queries, read_vectors(BaseFiles(subject.folder / base.file).vectors, base.dim), K
            )
        ]
        - 1
    )
    neighbours = FaissIndex(catalogue, RELEASE)
    parties = [ours(neighbours), bare_faiss(subject.folder, mapped)]
    for name in peers:
        logger.info("building %s", name)
        parties.append(PEERS[name](subject.embeddings.stored[: subject.count], work))
    points = measure(parties, subject.embeddings.queries, truth, threads=options.threads, rounds=options.rounds)
    print(f"{subject.count:,} vectors of {base.dim} numbers, {len(truth)} queries, recall@10 of at least {RECALL}")
    print(table(points))
    _print_builds(parties)
    as_built = round(recall_of(neighbours.search(subject.embeddings.queries, K).rows - 1, truth), 4)
    by_sort = base.facts["recall_by_sort"]
    print(f"built to depth {base.facts['depth']}, recall of trial queries {by_sort}, of the real ones {as_built}")
    return {"points": points, "base": base, "ratios": _ratios(points, options.threads), "as_built": as_built}


def _ratios(points: Sequence[Point], threads: Sequence[int]) -> dict[str, float | None]:
    """Ours by bare FAISS, time a query in batches, by number of threads."""
    ratios: dict[str, float | None] = {}
    for count in threads:
        mine, bare = (cheapest(points, party, count, RECALL) for party in ("ours", "bare faiss"))
        ratios[str(count)] = round(mine.batch_us / bare.batch_us, 3) if mine is not None and bare is not None else None
    return ratios


def _print_builds(parties: Sequence[Party]) -> None:
    for party in parties:
        if party.build_s is not None:
            size = f", {party.megabytes:,.0f} MB" if party.megabytes is not None else ""
            print(f"{party.name}: built in {party.build_s:,.1f} s{size}")


def _parts(subject: Subject) -> Iterator[Vectors]:
    real = subject.embeddings.stored
    if subject.count <= len(real):
        return (real[at : min(at + _PART, subject.count)] for at in range(0, subject.count, _PART))
    return grown(real, subject.count, near=nearest(real))


def memory(folder: Path, base: BaseRecord, queries: Vectors) -> dict[str, Any]:
    """Two workers' memory, and one's beside what the index costs on paper.

    Ours is the index file in full, as if every page of it were in memory, and what a worker took of its own to open
    and search it. The mapped vectors are listed apart, as the kernel keeps whatever there is room for.
    """
    held = two_workers(folder, queries)
    index = BaseFiles(folder / base.file).index.stat().st_size / 2**20
    paper = KINDS[base.kind].bytes_on_disk(base.count, base.dim) / 2**20
    (alone,) = held["1"]
    own = max(0.0, alone["rss_other"] - held["before_mb"])
    for count in ("1", "2"):
        for number, one in enumerate(held[count]):
            figures = ", ".join(f"{name.replace('_', ' ')} {value:,.0f}" for name, value in one.items())
            print(f"worker {number + 1} of {count}, MB: {figures}")
    print(f"index file {index:,.0f} MB, on paper {paper:,.0f} MB; a worker's own {own:,.0f} MB")
    return {"index_mb": index, "paper_mb": paper, "own_mb": own, "vs_paper": round((index + own) / paper, 3), **held}


def run(options: argparse.Namespace, work: Path) -> Figures:
    """Everything; returns the last line."""
    embeddings = load_embeddings(options.embeddings, queries=options.queries)
    small = Subject(work / f"c{options.small}", options.small, embeddings)
    large = Subject(work / f"c{options.large}", options.large, embeddings)
    found = {
        one.count: compare(one, options, peers=options.peers if one is small else (), work=work)
        for one in (small, large)
    }
    held = memory(large.folder, found[large.count]["base"], embeddings.queries)
    seconds = {
        state: first_search(large.folder, embeddings.queries, cold=state == "cold") for state in ("cold", "warm")
    }
    print(f"process start to first search at {large.count:,}: {seconds}")
    http = _http(small, options, work) if options.http else None
    of_small, of_large = found[small.count]["points"], found[large.count]["points"]
    most = max(options.threads)
    mine = {
        count: cheapest(points, "ours", most, RECALL)
        for count, points in ((small.count, of_small), (large.count, of_large))
    }
    small_point, large_point = mine[small.count], mine[large.count]
    if small_point is None or large_point is None:
        raise ValueError(f"no depth that was tried reaches recall@10 {RECALL}")
    slower = round(large_point.batch_us / small_point.batch_us, 3)
    ratio = found[large.count]["ratios"][str(most)]
    return {
        "recall_at_10": round(large_point.recall, 4),
        "ratios": {
            "server_vs_bare_faiss": ratio,
            "memory_vs_paper": held["vs_paper"],
            "time_1m_vs_50k": slower if (small.count, large.count) == (50_000, 1_000_000) else None,
        },
        "first_search_s_1m": round(seconds["cold"], 2) if large.count == 1_000_000 else None,
        "sizes": [small.count, large.count],
        "recall_at_built_depth": {str(count): one["as_built"] for count, one in found.items()},
        "time_large_vs_small": slower,
        "server_vs_bare_faiss": {str(count): one["ratios"] for count, one in found.items()},
        "first_search_s": {state: round(value, 2) for state, value in seconds.items()},
        "http": asdict(http) if http is not None else None,
        "memory": held,
        "points": {str(count): [asdict(point) for point in one["points"]] for count, one in found.items()},
    }


def _http(subject: Subject, options: argparse.Namespace, work: Path) -> HttpFigures:
    found = over_http(
        _parts(subject),
        work / f"http{subject.count}",
        count=subject.count,
        kind=options.kind,
        queries=subject.embeddings.queries,
    )
    print(
        f"one search among {subject.count:,}, ms: vector {found.vector_http_ms} over HTTP, {found.vector_here_ms} here"
    )
    print(f"picture {found.image_http_ms} over HTTP, {found.image_here_ms} here, both with its embedding")
    return found


_PEERS = [name for name in PEERS if name != "milvus"]  # which is none of the requirements


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--embeddings", type=Path, required=True, help="a folder that simclr bulk wrote")
    parser.add_argument("--work", type=Path, help="keeps the collections there (default: a temporary folder)")
    parser.add_argument("--small", type=int, default=50_000, help="vectors of the first collection, real ones")
    parser.add_argument("--large", type=int, default=1_000_000, help="vectors of the second (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=1_000, help="default: %(default)s")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of FAISS (default: 1 2)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each, medians (default: %(default)s)")
    parser.add_argument(
        "--kind", choices=("hnsw", "ivf", "ivf_rabitq"), default="hnsw", help="of both bases (default: %(default)s)"
    )
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=_PEERS, help="beside FAISS, at the small size")
    parser.add_argument("--quick", action="store_true", help="5,000 and 15,000 vectors, usearch alone, no HTTP")
    parser.add_argument("--http", action=argparse.BooleanOptionalAction, default=True, help="serve one, and ask it")


def _measure(options: argparse.Namespace) -> Figures:
    if options.quick:
        options.small, options.large, options.peers, options.rounds = 5_000, 15_000, ["usearch"], 2
        options.queries, options.http = min(options.queries, 300), False
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work if options.work is not None else Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        return run(options, work)


COMMAND = benchmark("benchmarks.search.search", __doc__, _add_arguments, _measure)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
