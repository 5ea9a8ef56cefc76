"""The kill test and the freshness test of `benchmarks.durability.durability`, through TorchServe over HTTP.

A round waits until a writer has begun an upsert or a deletion, or a compaction has begun, kills one of the two
TorchServe workers with SIGKILL a random moment later, and compares: the collection with all that was acknowledged,
while the others go on; then, with the writers paused, searches over HTTP with brute force over SQLite's rows. The next
round kills the worker that is left, mostly before TorchServe has another; then both must come back and find the same.
In rounds of compaction, the compaction is killed as well. Requests that a kill cut off, or that were refused while
nobody served, are counted; they are not acknowledged.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import kill
from signal import SIGKILL
from typing import Any

import httpx
import numpy as np
from tqdm import tqdm

from benchmarks.durability.checks import Judge, K, Subject
from benchmarks.durability.service import TOLERANCE, WORKERS, Service
from benchmarks.durability.worker import Worker
from benchmarks.durability.writer import HttpWriter, all_paused, upsert_of
from benchmarks.tools.child import ChildError
from benchmarks.tools.vectors import brute_force, unit_vectors
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.vectors import Vectors
from serving.protocol.wire import WORKER_HEADER

STAGES = ("storing", "deleting", "compacting")
_LONGEST = {"storing": 0.05, "deleting": 0.02, "compacting": 0.1}  # seconds that a kill waits at most, by stage
_LASTING = 10  # batches that nobody deletes
_WRITERS = 4
_AGAIN = 200  # searches until both workers must have answered
_RESTART_SECONDS = 120.0
_POLL_SECONDS = 0.1
_NEAR = 1e-5  # of a score


def kill_rounds(service: Service, *, rounds: int, seed: int) -> Counter[str]:
    """Kill `rounds` times; returns the counts."""
    chance = random.Random(seed)
    catalogue = begin(service)
    pictures = service.pictures
    subject = Subject(service.release, pictures.vectors_of, _queries(pictures.vectors), TOLERANCE)
    writers = [HttpWriter(service, f"writer{number}") for number in range(_WRITERS)]
    judge = Judge(catalogue, writers, subject)
    searches = Searches(service, catalogue, writers, subject.queries)
    try:
        for number in tqdm(range(rounds), desc="kills", mininterval=5):
            stage = STAGES[number % len(STAGES)]
            victim = _kill(service, writers, stage=stage, chance=chance)
            judge.counts[f"killed while {stage}"] += 1
            judge.check(whole=number % 10 == 0)
            if number % WORKERS != WORKERS - 1 and number != rounds - 1:
                searches.compare(workers=1)
            else:
                with all_paused(writers[1:]):  # one goes on: new workers start sooner
                    _wait_until_back(service, victim)
                searches.compare(workers=WORKERS)
    finally:
        for writer in writers:
            writer.stop()
    judge.check(whole=True)
    judge.counts.update(searches.counts)
    judge.counts["acknowledged"] = sum(writer.heard().acknowledged for writer in writers)
    for writer in writers:
        judge.counts.update({f"refused: {why}": count for why, count in writer.refused.items()})
    judge.close()
    catalogue.close()
    return judge.counts


def stale_reads(service: Service, *, pairs: int) -> Counter[str]:
    """Write through one worker and search through another, `pairs` times; how often the search was stale."""
    counts: Counter[str] = Counter({"stale": 0})
    begin(service).close()
    lock = threading.Lock()
    progress = tqdm(total=pairs, desc="fresh", mininterval=5)

    def go_on(name: str) -> None:
        with httpx.Client(timeout=60, trust_env=False) as http:
            number = 0
            while counts["crossed"] < pairs:
                writer, reader, fresh = _write_and_search(http, service, name, number)
                number += 1
                with lock:
                    counts["pairs"] += 1
                    counts["stale"] += not fresh
                    counts["crossed"] += writer != reader
                    progress.update(int(writer != reader))

    with ThreadPoolExecutor(_WRITERS) as pool:
        for done in [pool.submit(go_on, f"moving{number}") for number in range(_WRITERS)]:
            done.result()
    progress.close()
    return counts


def begin(service: Service) -> Catalogue:
    """Store the batches that stay; the collection, opened in this process too."""
    with httpx.Client(timeout=60, trust_env=False) as http:
        for number in range(_LASTING):
            http.post(service.address("upsert"), **upsert_of(service, "first", number)).raise_for_status()
    return open_catalogue(service.folder)


@dataclass
class Searches:
    """Searches over HTTP, compared while nobody writes."""

    service: Service
    catalogue: Catalogue
    writers: Sequence[HttpWriter]
    queries: Vectors
    counts: Counter[str] = field(default_factory=Counter)

    def compare(self, *, workers: int) -> None:
        """Ask until `workers` workers have answered; each answer must be what brute force finds in SQLite's rows."""
        with all_paused(self.writers):
            with self.catalogue.reading():
                rows, vectors = self.catalogue.vectors.at(
                    self.catalogue.vectors.census(self.service.release).rows, self.service.release
                )
                items = self.catalogue.items.at(rows.tolist())
            at = {items[row].id: place for place, row in enumerate(rows.tolist())}
            expected = brute_force(rows, vectors, self.queries, K)
            scores = self.queries @ vectors.T
            for results, exact in self._replies(workers):
                self.counts["searches compared"] += len(results)
                self.counts["divergences"] += wrong(results, scores, at, expected.scores if exact else None)

    def _replies(self, workers: int) -> list[tuple[list[Any], bool]]:
        """Of each worker the results of a search in full (True), and of one as usual."""
        found: dict[tuple[str, bool], list[Any]] = {}
        with httpx.Client(timeout=60, trust_env=False) as http, ThreadPoolExecutor(2) as pool:
            for _ in range(_AGAIN):
                for exact in (True, False):
                    for reply in pool.map(lambda exact: self._ask(http, exact=exact), (exact, exact)):
                        if reply is not None:
                            found[reply.headers[WORKER_HEADER], exact] = reply.json()["results"]
                if len(found) >= 2 * workers:
                    return [(results, exact) for (_, exact), results in found.items()]
        raise ChildError(f"{_AGAIN} searches were answered by {len(found) // 2} workers, not by {workers}")

    def _ask(self, http: httpx.Client, *, exact: bool) -> httpx.Response | None:
        body = {"vectors": self.queries.tolist(), "k": K, "exact": exact}
        try:
            reply = http.post(self.service.address("search"), json=body)
        except httpx.TransportError:
            reply = httpx.Response(503)
        self.counts["searches refused"] += reply.status_code != 200
        return reply if reply.status_code == 200 else None


def wrong(results: Sequence[Any], scores: Vectors, at: dict[str, int], best: Vectors | None) -> int:
    """How many queries have neighbours that are not there, too few, or with scores that are not theirs.

    `at` is where in `scores` (Q, N) an id's item is. `best` (Q, K) are the scores that brute force finds, for a search
    in full; items with the same picture may come in any order.
    """
    count = 0
    for place, result in enumerate(results):
        names = [one["id"] for one in result["neighbours"]]
        told = np.array([one["score"] for one in result["neighbours"]])
        if len(set(names)) != min(K, scores.shape[1]) or not set(names) <= at.keys():
            count += 1
            continue
        own = scores[place, [at[name] for name in names]]
        expected = [own] if best is None else [own, best[place]]
        count += not all(np.allclose(told, one, rtol=0, atol=_NEAR) for one in expected)
    return count


def _kill(service: Service, writers: Sequence[HttpWriter], *, stage: str, chance: random.Random) -> int:
    """Kill a worker in this stage; its process."""
    victim = chance.choice(sorted(service.ready()))
    if stage == "compacting":
        compactor = Worker("compact", service.folder, "c", service.release)
        try:
            compactor.wait_for(stage)
            time.sleep(chance.random() * _LONGEST[stage])
            kill(victim, SIGKILL)
        finally:
            compactor.kill()
    else:
        for writer in writers:
            writer.wait_for("storing")  # so that all are at work
        chance.choice(writers).wait_for(stage)
        time.sleep(chance.random() * _LONGEST[stage])
        kill(victim, SIGKILL)
    return victim


def _wait_until_back(service: Service, victim: int) -> None:
    """Until as many workers serve as before, none of which is `victim`."""
    deadline = time.monotonic() + _RESTART_SECONDS
    while time.monotonic() < deadline:
        ready = service.ready()
        if victim not in ready and len(ready) == WORKERS:
            return
        time.sleep(_POLL_SECONDS)
    raise ChildError(f"TorchServe did not start a worker in place of {victim} within {_RESTART_SECONDS:.0f} s")


def _write_and_search(http: httpx.Client, service: Service, name: str, number: int) -> tuple[str, str, bool]:
    """Give an item the next picture and label, then look for it; who wrote, who searched, whether it was found so."""
    pictures = service.pictures
    (picture,) = pictures.of(name, number, 1)
    put = http.post(
        f"{service.address('upsert')}&id={name}&label={number}",
        content=pictures.files[picture],
    ).raise_for_status()
    vector = pictures.vectors[picture]
    got = http.post(service.address("search"), json={"vector": vector.tolist(), "k": K}).raise_for_status()
    near = {one["id"]: one for one in got.json()["results"][0]["neighbours"]}
    fresh = name in near and near[name]["label"] == str(number) and abs(near[name]["score"] - 1) < TOLERANCE
    return put.headers[WORKER_HEADER], got.headers[WORKER_HEADER], fresh


def _queries(vectors: Vectors) -> Vectors:
    """Some of the pictures, and some that are none."""
    return np.concatenate([vectors[:3], unit_vectors(1, vectors.shape[1], seed=11)])
