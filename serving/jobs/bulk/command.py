"""Embed a folder, a zip, single images or a list of millions of paths with a release, without a server."""

import argparse
import os
import sys
from pathlib import Path

from core.command_line.command import Command, main
from core.command_line.endings import conclude, first_few
from core.command_line.values import not_negative, positive
from core.releases.model_store import find_release
from serving.jobs.bulk.errors import RESUME, BulkError
from serving.jobs.parallel.arguments import add_arguments
from serving.jobs.parallel.tasks import WorkError, task_of

_DETAILS = """\
simclr bulk photographs --release model_store/photos/1 --out embeddings
simclr bulk --list paths.txt --release model_store/photos/1 --out embeddings --dtype float16

The images are embedded in shards, by several processes. Killed and run again, the command goes on with the shards that
are not finished; in the end the bytes are those of a run that was never killed. Images that can't be read are listed
and stop nothing. Several tasks, or several copies of the same command, may share one --out.
"""
_SHARD_SIZE = 4096
_REASONS_SHOWN = 10


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="a folder, a zip or an image")
    add("--list", metavar="FILE", help="a text file with the path of an image on each line; - reads standard input")
    add("--out", type=Path, required=True, help="folder to write, or to go on with")
    add("--shard-size", type=positive, default=_SHARD_SIZE, help="images in a shard (default: %(default)s)")
    add("--dtype", choices=("float32", "float16"), default="float32", help="default: %(default)s")
    add("--batch", type=not_negative, default=0, help="images in one forward pass (default: what suits)")
    add("--verify", action="store_true", help="check the digests of what is finished, not only the sizes")
    add_arguments(parser)


def _run(given: argparse.Namespace) -> int:
    from serving.jobs.bulk.embed import embed, unreadable  # pyarrow and the runtime
    from serving.jobs.bulk.job import JobRequest, open_job
    from serving.jobs.bulk.sources import named

    release = find_release(given.release)
    task = task_of(given.task_index, given.task_count, os.environ)
    request = JobRequest(
        release, named(given.paths, given.list), given.form, given.dtype, batch=given.batch, shard_size=given.shard_size
    )
    job = open_job(given.out, request, verify=given.verify)
    done = embed(given.out, job, task, release=release.folder, processes=given.processes, verify=given.verify)
    images, embedded = sum(shard.images for shard in done), sum(shard.embedded for shard in done)
    lines = (f"left out {line}" for line in unreadable(given.out, done))
    for line in first_few(lines, _REASONS_SHOWN, rest="see `error` in the .parquet files"):
        print(line, file=sys.stderr)
    conclude(
        f"{given.out}: {embedded:,} of {images:,} images embedded by {job.release} ({job.form}) in {len(done):,} of "
        f"{job.shards:,} shards, {images - embedded:,} unreadable",
        then=f"in Python, `serving.jobs.bulk.reader.read({str(given.out)!r})` yields the shards",
        as_json=given.json,
        out=given.out,
        release=job.release,
        form=job.form,
        images=images,
        embedded=embedded,
        shards=len(done),
        shards_of_all_tasks=job.shards,
    )
    if images and not embedded:
        raise BulkError(f"none of the {images:,} images can be read")
    return 0


COMMAND = Command(
    "bulk",
    "Embed folders, zips, images or a list of paths without a server.",
    _add_arguments,
    _run,
    details=_DETAILS,
    errors=(WorkError,),
    resume=RESUME,
)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
