"""Embed a folder, a zip, single images or a list of millions of paths with a release, without a server.

    python -m serving.bulk photographs --release model_store/photos/1 --out embeddings
    python -m serving.bulk --list paths.txt --release model_store/photos/1 --out embeddings --dtype float16

The images are embedded in shards (`serving.jobs.bulk.shards`), by several processes. Killed and run again it goes on
with the shards that are not finished; the bytes in the end are those of a run that was never killed. Images that
can't be read are listed, and stop nothing. Several tasks (`serving.jobs.parallel.tasks`) share one --out, and so may
several running copies of the same command.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from core.images.folders import SourceError
from core.releases.manifest import ManifestError, Release
from serving.inference.choice import FORMS
from serving.jobs.bulk.errors import RESUME, BulkError
from serving.jobs.bulk.job import Asked, Job, open_job
from serving.jobs.bulk.shards import ShardFacts, ShardFiles, finished_shard
from serving.jobs.bulk.sources import named
from serving.jobs.bulk.worker import Post, work
from serving.jobs.parallel.crew import Crew
from serving.jobs.parallel.resumable import positive, run_resumable
from serving.jobs.parallel.seats import seats
from serving.jobs.parallel.tasks import Task, WorkError, task_of

SHARD_SIZE = 4096
_REASONS_SHOWN = 10
_LOG_SECONDS = 30.0  # between progress lines where nobody watches
_LOG = logging.getLogger(__name__)


def embed(job: Job, task: Task, given: argparse.Namespace) -> list[ShardFacts]:
    """Finish the task's shards; returns the facts of all of them."""
    mine = task.pieces(job.shards)
    done = _finished(given.out, mine, verify=given.verify)
    rest = [shard for shard in mine if shard not in done]
    places = seats(task, processes=given.processes, most=len(rest))
    watched = sys.stderr.isatty()
    with (
        Crew([Post(given.out, given.release, seat) for seat in places], work, again=RESUME) as crew,
        tqdm(
            total=sum(len(job.rows(shard)) for shard in mine),
            initial=sum(facts.images for facts in done.values()),
            desc="embed",
            unit=" images",
            mininterval=0.1 if watched else _LOG_SECONDS,
        ) as bar,
    ):
        for images in crew.work(rest):
            bar.update(images)
    done |= _finished(given.out, rest)
    missing = [shard for shard in mine if shard not in done]
    if missing:
        raise BulkError(f"shard {missing[0]} was changed while this ran; {RESUME}")
    return [done[shard] for shard in mine]


def _finished(out: Path, shards: Sequence[int], *, verify: bool = False) -> dict[int, ShardFacts]:
    """The facts of those that are finished; one whose digests are not as they were is begun again."""
    found: dict[int, ShardFacts] = {}
    for shard in tqdm(shards, desc="verify", unit=" shards", disable=not verify):
        facts = finished_shard(out, shard, verify=verify)
        if facts is not None:
            found[shard] = facts
        elif verify:
            ShardFiles.of(out, shard).facts.unlink(missing_ok=True)  # a worker looks at sizes only
    return found


def _report(out: Path, job: Job, facts: Sequence[ShardFacts]) -> int:
    """Say what there is now; returns the exit code."""
    images, embedded = sum(shard.images for shard in facts), sum(shard.embedded for shard in facts)
    reasons = _reasons(out, facts)
    for line in reasons:
        print(f"left out {line}", file=sys.stderr)
    if images - embedded > len(reasons):
        print(f"(and {images - embedded - len(reasons)} more: see `error` in the .parquet files)", file=sys.stderr)
    print(
        f"{out}: {embedded} of {images} images embedded by {job.release} ({job.form}) in {len(facts)} of {job.shards} "
        f"shards, {images - embedded} unreadable"
    )
    if images and not embedded:
        print(f"error: none of the {images} images can be read", file=sys.stderr)
        return 1
    return 0


def _reasons(out: Path, facts: Sequence[ShardFacts]) -> list[str]:
    """The first images that could not be read, and why."""
    found: list[str] = []
    for shard in facts:
        if shard.unreadable and len(found) < _REASONS_SHOWN:
            table = pq.read_table(ShardFiles.of(out, shard.shard).parquet, columns=["id", "error"])
            bad = table.filter(pc.is_valid(table["error"])).slice(0, _REASONS_SHOWN - len(found))
            found += [f"{row['id']}: {row['error']}" for row in bad.to_pylist()]
    return found


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.bulk", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("paths", nargs="*", metavar="PATH", help="a folder, a zip or an image")
    parser.add_argument("--list", metavar="FILE", help="a text file with the path of an image a line; - reads them")
    parser.add_argument("--release", type=Path, required=True, help="folder of the release that embeds")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, or to go on with")
    parser.add_argument("--processes", type=positive, help="worker processes (default: one a GPU, else one a core)")
    parser.add_argument("--shard-size", type=int, default=SHARD_SIZE, help="images a shard (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="default: %(default)s")
    parser.add_argument("--form", choices=FORMS, default="auto", help="which file of the release (default: what suits)")
    parser.add_argument("--batch", type=int, default=0, help="images in one forward pass (default: what suits)")
    parser.add_argument("--task-index", type=int, help="which of several tasks this is (default: SLURM's, torchrun's)")
    parser.add_argument("--task-count", type=int, help="how many tasks there are")
    parser.add_argument("--verify", action="store_true", help="check the digests of what is finished, not only sizes")
    return parser.parse_args(arguments)


def _run(given: argparse.Namespace) -> int:
    release = Release(given.release)
    task = task_of(given.task_index, given.task_count, os.environ)
    asked = Asked(
        release, named(given.paths, given.list), given.form, given.dtype, batch=given.batch, shard_size=given.shard_size
    )
    job = open_job(given.out, asked, verify=given.verify)
    return _report(given.out, job, embed(job, task, given))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    given = _arguments(arguments)
    return run_resumable(lambda: _run(given), told=(WorkError, SourceError, ManifestError, OSError), again=RESUME)


if __name__ == "__main__":
    sys.exit(main())
