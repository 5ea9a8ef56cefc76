"""`simclr retrain`: from what a collection has gathered to a release that serves, if it is better."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from core.command_line.command import Command, main
from core.command_line.endings import ending_of
from core.files.durable import publish_text
from core.files.json_text import json_text
from retraining.errors import Busy, NotFollowed, NotPromoted, StageFailed
from retraining.plan import MODES, Plan
from training.recipe.presets import PRESETS

logger = logging.getLogger(__name__)

DONE, NOT_BETTER, BUSY, NOT_FOLLOWED = 0, 3, 4, 5
_DETAILS = """Freezes the collection, pretrains on from the champion's encoder, fits the probe, exports, compares with
the champion, embeds every item anew, and promotes; running servers follow. Killed at any moment, the same command goes
on where it was. It stops no server, and by default it makes way for them.

examples:
  simclr retrain --name photographs --collection runs/photographs/collection --dry-run
  simclr retrain --name photographs --collection runs/photographs/collection --if-needed

The last line on standard output, and --summary, are one JSON object. Exit codes besides the usual ones:
  0  promoted, or nothing was needed
  3  not better than the champion, which goes on serving
  4  another retraining is at work
  5  a server refused the release, and the champion was set back"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--name", required=True, help="name of the releases: model_store/NAME/1, 2, ...")
    add("--store", type=Path, default=Path("model_store"), metavar="DIR", help="(%(default)s)")
    add("--collection", type=Path, metavar="DIR", help="collection to learn from and to embed anew; it may be served")
    images = "folder or zip of images, to be stored in the collection first, or to learn from alone"
    add("--images", type=Path, metavar="PATH", help=images)
    add("--labels", action="store_true", help="the folders of --images are labels")
    start = "begin with the champion's encoder (the default), at random, or only fit a new probe"
    add("--mode", choices=MODES, default="warm", help=start)
    add("--preset", choices=PRESETS, default="", help="recipe of the pretraining (the champion's)")
    add("--epochs", type=int, default=0, help="length of the pretraining (the preset's)")
    add("--minutes", type=float, default=0.0, help="length of the pretraining, instead of --epochs")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="set any key of the pretraining; repeatable")
    add("--seed", type=int, default=0, help="(%(default)s)")
    add("--image-size", type=int, default=0, metavar="PIXELS", help="side of the images (the champion's)")
    add("--no-int8", action="store_true", help="leave out int8, which takes longest of the export")
    add("--launcher", default="", metavar="WORDS", help='starts the pretraining: "torchrun --nproc-per-node 8"')
    add("--work", type=Path, metavar="DIR", help="folder for what lies between (runs/retrain/NAME)")
    add("--if-needed", action="store_true", help="only if the collection has drifted, as simclr drift measures it")
    add("--force", action="store_true", help="promote even what is not better; the release's history records it")
    add("--fresh", action="store_true", help="give up an unfinished retraining and begin another")
    add("--full-speed", action="store_true", help="do not make way for servers on this machine")
    add("--keep", action="store_true", help="keep pixels, checkpoint and embeddings at the end")
    add("--dry-run", action="store_true", help="only say what would be done, how long it takes and how much disk")
    add("--summary", type=Path, metavar="FILE", help="write the JSON summary here too")


def _run(given: argparse.Namespace) -> int:
    try:
        code, summary = _outcome(given)
    except BaseException as error:  # whatever it is, whoever reads the summary is to learn of it
        ending = ending_of(error, expected=(ValueError, OSError, StageFailed), resume=COMMAND.resume)
        outcome = "stopped" if ending.code > 128 else "failed"
        _publish(given, ending.code, {"outcome": outcome, "reason": ending.sentence.removeprefix("error: ")})
        raise
    _publish(given, code, summary)
    return code


def _outcome(given: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Carry it out; returns exit code and summary."""
    from retraining.attempt import dry_run, retrain  # collections and FAISS
    from retraining.conduct import Wishes
    from retraining.locks import alone

    plan, polite = _plan(given), not given.full_speed
    work = (given.work or Path("runs") / "retrain" / given.name).resolve()
    if given.dry_run:
        return DONE, dry_run(plan, work, polite=polite)
    wishes = Wishes(given.force, polite, given.keep, fresh=given.fresh, if_needed=given.if_needed)
    try:
        with alone(plan) as locks:
            return DONE, retrain(plan, work, wishes, locks=locks)
    except Busy as error:
        logger.error("%s", error)
        return BUSY, {"outcome": "busy", "reason": str(error)}
    except NotPromoted as error:
        logger.error("%s", error)
        return NOT_FOLLOWED if isinstance(error, NotFollowed) else NOT_BETTER, error.summary


def _plan(given: argparse.Namespace) -> Plan:
    return Plan(
        name=given.name,
        store=str(given.store.resolve()),
        collection=str(given.collection.resolve()) if given.collection else "",
        images=str(given.images.resolve()) if given.images else "",
        labels=given.labels,
        mode=given.mode,
        preset=given.preset,
        epochs=given.epochs,
        minutes=given.minutes,
        settings=tuple(given.set),
        seed=given.seed,
        image_size=given.image_size,
        int8=not given.no_int8,
        launcher=given.launcher,
    )


def _publish(given: argparse.Namespace, code: int, summary: dict[str, Any]) -> None:
    text = json_text({"exit_code": code, **summary})
    if given.summary is not None:
        try:
            publish_text(given.summary, text + "\n")
        except OSError as error:  # what was done is done, and the last line has it all
            logger.warning("the summary can't be written: %s", error)
    print(text)


COMMAND = Command(
    "retrain",
    "Train on a collection and promote.",
    _add_arguments,
    _run,
    details=_DETAILS,
    errors=(StageFailed,),
    resume="the same command goes on",
)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
