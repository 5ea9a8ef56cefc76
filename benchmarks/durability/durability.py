"""Processes of a collection are killed with SIGKILL while they write, delete and compact: what was acknowledged stays.

    python -m benchmarks.durability.durability [--rounds 200] [--writes 10000] [--http]

Two writers and a compactor work at one collection without pause; the parent searches it. A round waits until one of
them has begun an upsert, a deletion or a compaction, in turn, kills it a random moment later, compares the collection
with all that was acknowledged until then, and starts it again; the others go on meanwhile. Then a process writes
`--writes` times and the parent, a process of its own, must find each write by the next search.

With `--http` both go through TorchServe with two workers, which are what is killed (`benchmarks.durability.http`), and
`--writes` counts the pairs of a write and a search that different workers answered.

It counts acknowledged writes and deletions that got lost, batches that are there in part, writes that the next search
missed, and divergences: searches that differ from brute force over SQLite's rows, vectors that are not those that were
sent, damage that SQLite's own checks find. Prints a last line of JSON, and fails if any of these is not 0. Power cuts
are not tried, as nothing here can pull the plug; commits are synced, and tests cut the log.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import faiss
from tqdm import tqdm

from benchmarks.durability.checks import Judge
from benchmarks.durability.child import RELEASE, items_of, names_of, vectors_of
from benchmarks.durability.worker import CHILD, Worker
from benchmarks.tools.child import ROOT
from benchmarks.tools.command import Figures, benchmark
from core.command_line.command import main
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.errors import CollectionError
from serving.collection.index.faiss.index import FaissIndex

STAGES = ("storing", "deleting", "compacting")
_LONGEST = {"storing": 0.004, "deleting": 0.003, "compacting": 0.05}  # seconds that a kill waits at most, by stage
_LASTING = 20  # batches that nobody deletes


def kill_rounds(folder: Path, *, rounds: int, seed: int) -> Counter[str]:
    """Kill `rounds` times; returns the counts."""
    chance = random.Random(seed)
    catalogue = _begin(folder)
    workers = [Worker("write", folder, "a"), Worker("write", folder, "b"), Worker("compact", folder, "c")]
    judge = Judge(catalogue, workers)
    try:
        for number in tqdm(range(rounds), desc="kills", mininterval=5):
            stage = STAGES[number % len(STAGES)]
            victim = workers[2] if stage == "compacting" else workers[chance.randrange(2)]
            victim.wait_for(stage)
            time.sleep(chance.random() * _LONGEST[stage])
            victim.kill()
            judge.counts[f"killed while {stage}"] += 1
            judge.check(whole=number % 10 == 0 or number == rounds - 1)
            victim.start()
    finally:
        for worker in workers:
            worker.kill()
    judge.check(whole=True)
    judge.counts["acknowledged"] = sum(worker.heard().acknowledged for worker in workers)
    judge.close()
    return judge.counts


def stale_reads(folder: Path, *, writes: int) -> int:
    """Write through one process and search through another; how many of the writes the next search missed."""
    catalogue = open_catalogue(folder)
    neighbours = FaissIndex(catalogue, RELEASE)
    stale = 0
    command = [*CHILD, "move", str(folder), "moving", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        for number in tqdm(range(writes), desc="fresh", mininterval=5):
            writer.stdin.write("\n")
            writer.stdin.flush()
            if json.loads(writer.stdout.readline()) != ["stored", number]:
                raise CollectionError("the writer ended before it had answered")
            with catalogue.reading():
                row = int(neighbours.search(vectors_of("moving", number, 1), 1).rows[0, 0])
                found = catalogue.items.at([row])[row]
            stale += (found.id, found.label) != ("moving", str(number))
        writer.stdin.close()
    neighbours.close()
    return stale


def _begin(folder: Path) -> Catalogue:
    catalogue = open_catalogue(folder, create=True)
    for number in range(_LASTING):
        catalogue.upsert(items_of(names_of("first", number)), vectors_of("first", number), RELEASE)
    return catalogue


def _in_processes(options: argparse.Namespace, work: Path) -> tuple[Counter[str], int]:
    """What was counted, and how many reads were stale."""
    counts = kill_rounds(work / "kills", rounds=options.rounds, seed=options.seed)
    _begin(work / "fresh").close()
    return counts, stale_reads(work / "fresh", writes=options.writes)


def _through_torchserve(options: argparse.Namespace, work: Path) -> tuple[Counter[str], int]:
    """The same over HTTP."""
    from benchmarks.durability import http as durability_http
    from benchmarks.durability import (
        service as durability_service,  # torch and more, which nothing else here needs
    )

    keep = options.work or work
    keep.mkdir(parents=True, exist_ok=True)
    release, archive = durability_service.prepare(keep)
    pictures = durability_service.draw_pictures(release)
    with durability_service.serve(release, archive, work / "kills", pictures) as service:
        counts = durability_http.kill_rounds(service, rounds=options.rounds, seed=options.seed)
        fresh = durability_http.stale_reads(service, pairs=options.writes)
    counts["writes searched for"], counts["of these by another worker"] = fresh["pairs"], fresh["crossed"]
    return counts, fresh["stale"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=200, help="kills (default: %(default)s)")
    parser.add_argument("--writes", type=int, default=10_000, help="each looked for at once (default: %(default)s)")
    parser.add_argument("--http", action="store_true", help="through TorchServe, whose workers are killed")
    parser.add_argument("--work", type=Path, help="folder that keeps the tiny release of --http for the next run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")


def _measure(options: argparse.Namespace) -> Figures:
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        counts, stale = (_through_torchserve if options.http else _in_processes)(options, Path(work))
    for name, count in counts.items():
        print(f"{name:<40}{count:>10,}")
    print(f"{'stale reads':<40}{stale:>10,} of {options.writes:,}")
    return {
        "rounds": options.rounds,
        "acknowledged": counts["acknowledged"],
        "acknowledged_lost": counts["acknowledged_lost"],
        "partial_batches": counts["partial_batches"],
        "stale_reads": stale,
        "divergences": counts["divergences"],
    }


_FAILURES = ("acknowledged_lost", "partial_batches", "stale_reads", "divergences")
COMMAND = benchmark("benchmarks.durability.durability", __doc__, _add_arguments, _measure, must_be_zero=_FAILURES)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
