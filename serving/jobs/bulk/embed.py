"""Finish the shards of a job that are one task's, by several processes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from serving.jobs.bulk.errors import RESUME, BulkError
from serving.jobs.bulk.job import Job
from serving.jobs.bulk.shards import ShardFacts, ShardFiles, finished_shard
from serving.jobs.bulk.worker import Post, work
from serving.jobs.parallel.crew import Crew
from serving.jobs.parallel.progress import progress_bar
from serving.jobs.parallel.seats import seats
from serving.jobs.parallel.tasks import Task


def embed(
    out: Path, job: Job, task: Task, *, release: Path, processes: int | None = None, verify: bool = False
) -> list[ShardFacts]:
    """Finish the task's shards of the job in `out` with the release in the folder; returns the facts of all of them.

    Raises `WorkError` if a process fails. With `verify`, shards that are finished are checked by digest first.
    """
    mine = task.pieces(job.shards)
    done = _finished(out, mine, verify=verify)
    rest = [shard for shard in mine if shard not in done]
    posts = [Post(out, release, seat) for seat in seats(task, processes=processes, most=len(rest))]
    images = sum(len(job.rows(shard)) for shard in mine)
    with (
        Crew(posts, work, again=RESUME) as crew,
        progress_bar(images, done=sum(facts.images for facts in done.values())) as bar,
    ):
        for more in crew.work(rest):
            bar.update(more)
    done |= _finished(out, rest)
    missing = [shard for shard in mine if shard not in done]
    if missing:
        raise BulkError(f"shard {missing[0]} was changed while this ran; {RESUME}")
    return [done[shard] for shard in mine]


def unreadable(out: Path, facts: Sequence[ShardFacts]) -> Iterator[str]:
    """The images that could not be read, and why; shards are read as the lines are taken."""
    for shard in facts:
        if shard.unreadable:
            table = pq.read_table(ShardFiles.of(out, shard.shard).parquet, columns=["id", "error"])
            for row in table.filter(pc.is_valid(table["error"])).to_pylist():
                yield f"{row['id']}: {row['error']}"


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
