"""A new release every round, from the collection to the servers and back again, under a load that never stops.

    python -m benchmarks.durability.rollover --images cifar10-images.zip [--rounds 5] [--rate 40]

A first encoder is trained, and served with a collection of some thousand images. A round is one whole `simclr retrain`
(freeze, pretrain on, evaluate, export, compare, embed, promote, roll over), then `simclr releases rollback`. All the
while 64 connections embed, search and upsert. It counts requests that failed; acknowledged writes that at the end are
missing from the collection, from the serving release's vectors or from its search; and replies that mix releases, which
name one and carry another's embedding, or whose search compared vectors of two. The p99 while servers roll over is
compared with the p99 before. Encoders are small and trained for seconds, so --force promotes what the gates may refuse.
Prints a last line of JSON, and fails if anything was lost, failed or mixed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.durability.rollover_load import SAME, SHOWN
from benchmarks.serving.load import percentile
from benchmarks.tools.child import ROOT, SIMCLR, Child
from benchmarks.tools.command import Figures, benchmark
from benchmarks.tools.jpegs import read_jpegs
from core.command_line.command import main
from core.releases.model_store import CHAMPION, ModelStore
from core.releases.servers import live_servers
from serving.client.client import Client
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.torchserve.launch import Server
from serving.torchserve.settings import Settings

NAME = "rollover"
_ASKED_WITH = 200  # pictures that the load sends
_POLL_SECONDS = 0.05
_FOLLOW_SECONDS = 300.0
_RECIPE = ("--set", "encoder.architecture=resnet18", "--set", "head.hidden=256")


@dataclass
class Spans:
    """When what happened, seconds since the epoch: lists of (begin, end)."""

    before: list[tuple[float, float]] = field(default_factory=list)
    retraining: list[tuple[float, float]] = field(default_factory=list)
    rolling: list[tuple[float, float]] = field(default_factory=list)

    @contextmanager
    def measured(self, which: list[tuple[float, float]]) -> Iterator[None]:
        """The block as a span."""
        begin = time.time()
        yield
        which.append((begin, time.time()))


class Site:
    """A folder with a store, a collection and a server that follows."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.options = options
        self.store = ModelStore(folder / "store", NAME)
        self.collection = folder / "collection"

    def begin(self) -> None:
        """The first release, and the collection that it fills."""
        images = self.folder / "images"
        for number, data in enumerate(read_jpegs(self.options.images, self.options.items)):
            path = images / f"{number:06d}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        self.retrain("--images", images, "--preset", "quickstart")

    def retrain(self, *words: object) -> dict[str, Any]:
        """One retraining, whole; its summary."""
        command = ["retrain", "--name", NAME, "--store", self.store.root, "--collection", self.collection]
        command += ["--work", self.folder / "retrain", "--epochs", self.options.epochs, "--no-int8", "--force"]
        output = _run(*command, *_RECIPE, *words)
        summary: dict[str, Any] = json.loads(output.splitlines()[-1])
        return summary

    def rollback(self) -> None:
        """Back to the release before."""
        _run("releases", "rollback", "--name", NAME, "--store", self.store.root)

    def wait_for_servers(self) -> None:
        """Until every server answers with the champion and has nothing else going on."""
        wanted = f"{NAME}/{self.store.alias(CHAMPION)}"
        deadline = time.monotonic() + _FOLLOW_SECONDS
        while any(one.release != wanted or one.state != "serving" for one in live_servers(self.store)):
            if time.monotonic() > deadline:
                raise RuntimeError(f"a server does not follow to {wanted}: {live_servers(self.store)}")
            time.sleep(_POLL_SECONDS)

    def rolling_span(self, since: float) -> tuple[float, float]:
        """From the last promotion, but not before `since`, to now."""
        return max(since, (self.store.home / "aliases" / CHAMPION).stat().st_mtime), time.time()


def rounds_under_load(site: Site, server: Server, load: Child) -> Spans:
    """Every round; when what happened."""
    options, spans = site.options, Spans()
    for number in range(options.rounds):
        with spans.measured(spans.before):
            time.sleep(options.quiet)  # a span of the load with nothing else going on, to compare with
        begin = time.time()
        with spans.measured(spans.retraining):
            summary = site.retrain("--seed", number)
        site.wait_for_servers()
        spans.rolling.append(site.rolling_span(begin))
        print(
            f"round {number + 1}: {summary['release']} in {summary['seconds']:.0f} s, "
            f"{summary['peak_bytes'] / 2**20:.0f} MB, rolled over in {_length(spans.rolling[-1]):.1f} s",
            file=sys.stderr,
        )
        begin = time.time()
        site.rollback()
        site.wait_for_servers()
        spans.rolling.append(site.rolling_span(begin))
        print(f"  back to {site.store.alias(CHAMPION)} in {_length(spans.rolling[-1]):.1f} s", file=sys.stderr)
    return spans


def lost_writes(site: Site, server: Server, acknowledged: Sequence[tuple[str, int]]) -> int:
    """Acknowledged items that are not stored, have no vector of the release that serves, or are not found."""
    release = site.store.release(CHAMPION)
    names = [name for name, _ in acknowledged]
    catalogue = open_catalogue(site.collection)
    lost = set(names) - set(catalogue.items.get_many(names))
    lost |= set(names) - set(catalogue.vectors.of(names, release.space))
    with Client(server.url) as client:
        for at in range(0, len(names), 64):
            part = [name for name in names[at : at + 64] if name not in lost]
            found = client.search(vectors=_vectors(catalogue, part, release.space), k=200)
            lost |= {
                name
                for name, result in zip(part, found, strict=True)
                if name not in {one["id"] for one in result["neighbours"]} and _best(result) < SAME
            }
    return len(lost)


def mixed(site: Site, told: dict[str, Any], images: Sequence[bytes]) -> int:
    """Replies that name a release and have another's answer."""
    wrong = sum(1 for *_, status, _, problem in told["requests"] if status == 200 and problem)
    by_release: dict[str, list[tuple[int, list[float]]]] = {}
    for title, picture, embedding in told["embeddings"]:
        by_release.setdefault(title, []).append((picture, embedding))
    for title, found in by_release.items():
        release = site.store.release(int(title.rpartition("/")[2]))
        engine = Engine.open(release.folder, options=EngineOptions(form="onnx"))
        truth = np.stack([one.embedding for one in engine.embed_files(images)])[:, :SHOWN]  # type: ignore[union-attr]
        places = np.array([picture for picture, _ in found])
        differences = np.abs(np.array([numbers for _, numbers in found]) - truth[places]).max(axis=1)
        wrong += int((differences > _tolerance(truth)).sum())
    return wrong


def _tolerance(truth: np.ndarray[Any, Any]) -> float:
    """What rounding may do; embeddings of another release differ by as much as these do from their mean."""
    return 0.02 * float(truth.std())


def figures_of(options: argparse.Namespace, spans: Spans, told: dict[str, Any]) -> dict[str, Any]:
    """Counts and latencies by what went on."""
    requests = told["requests"]
    failed = Counter(f"{status} {problem[:120]}" for *_, status, _, problem in requests if status != 200)
    for reason, count in failed.most_common(5):
        print(f"failed {count} times: {reason}", file=sys.stderr)
    before, training, rolling = (
        _latencies(requests, which) for which in (spans.before, spans.retraining, spans.rolling)
    )
    print(f"{'':<24}{'requests':>10}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}")
    for title, found in (("nothing else", before), ("while retraining", training), ("while rolling over", rolling)):
        print(f"{title:<24}{len(found):>10}" + "".join(f"{percentile(found, q) or 0:>10.1f}" for q in (50, 99, 100)))
    releases = Counter(release for *_, status, release, _ in requests if status == 200)
    print("replies by release: " + ", ".join(f"{name} {count}" for name, count in sorted(releases.items())))
    p99, base = percentile(rolling, 99), percentile(before, 99)
    return {
        "rounds": options.rounds,
        "requests": len(requests),
        "failed_requests": sum(failed.values()),
        "acknowledged": len(told["acknowledged"]),
        "p99_ratio": round(p99 / base, 2) if p99 and base else None,
        "seconds_rolling": [round(_length(span), 1) for span in spans.rolling],
    }


def _latencies(requests: Sequence[Sequence[Any]], spans: Sequence[tuple[float, float]]) -> list[float]:
    return sorted(
        latency
        for when, latency, _, status, *_ in requests
        if status == 200 and any(begin <= when - latency / 1000 <= end for begin, end in spans)
    )


def _vectors(catalogue: Catalogue, names: Sequence[str], space: str) -> list[Any]:
    stored = catalogue.vectors.of(names, space)
    return [stored[name] for name in names]


def _best(result: dict[str, Any]) -> float:
    return max((float(one["score"]) for one in result["neighbours"]), default=0.0)


def _length(span: tuple[float, float]) -> float:
    return span[1] - span[0]


def _run(*words: object) -> str:
    """One of our commands; its standard output."""
    done = subprocess.run([*SIMCLR, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"simclr {words[0]} ended with code {done.returncode}: {done.stderr[-3000:]}")
    return done.stdout


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, required=True, help="folder or zip of JPEG files")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second (default: %(default)s)")
    parser.add_argument("--items", type=int, default=2_000, help="of the collection (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="of every pretraining (default: %(default)s)")
    parser.add_argument("--quiet", type=float, default=20.0, help="seconds of load alone, a round")
    parser.add_argument("--workers", type=int, default=2, help="of the server (default: %(default)s)")


def _measure(options: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory() as work:
        site = Site(Path(work), options)
        site.begin()
        images = read_jpegs(options.images, _ASKED_WITH)
        settings = Settings(
            store=site.store.root, name=NAME, collection=site.collection, port=0, workers=options.workers, form="onnx"
        )
        with Server(settings) as server, Child("benchmarks.durability.rollover_load") as load:
            load.tell({"port": int(server.url.rpartition(":")[2]), "rate": options.rate}, images)
            spans = rounds_under_load(site, server, load)
            load.tell({"stop": True})
            told = load.hear()
            figures = figures_of(options, spans, told)
            figures["lost_writes"] = lost_writes(site, server, told["acknowledged"])
            figures["mixed_releases"] = mixed(site, told, images)
    return figures


_FAILURES = ("failed_requests", "lost_writes", "mixed_releases")
COMMAND = benchmark("benchmarks.durability.rollover", __doc__, _add_arguments, _measure, must_be_zero=_FAILURES)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
