"""Retrain in batch: from what a collection has gathered to a new release that serves, if it is better.

    python -m training.retrain --name photos --collection runs/photos/collection --dry-run
    python -m training.retrain --name photos --collection runs/photos/collection --if-needed

Freezes the collection, pretrains on from the champion's encoder, fits the probe, exports, compares with the champion,
embeds every item anew, and promotes; running servers follow. Killed at any moment, the same command goes on where it
was. Nothing it does stops a server, and by default it makes way for one.

Exit codes: 0 promoted, or nothing needed; 1 an error; 2 wrong usage; 3 not better than the champion, which goes on
serving; 4 another retraining is at work; 5 a server refused the release, and the champion was set back; 128 + signal
when stopped. The last line on standard output, and --summary, are one JSON object.
"""

import argparse
import json
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from core.files.durable import publish_text
from core.releases.manifest import ManifestError
from core.releases.model_store import CHAMPION
from retraining.apart import estimate_apart
from retraining.child import Stopped, heeded
from retraining.conduct import NotBetter, Retraining, StageFailed, Wishes
from retraining.costs import lacking_room, table
from retraining.journal import abandon, begin, last_summaries, sweep, unfinished
from retraining.locks import Busy, alone
from retraining.need import needed
from retraining.plan import MODES, Plan, PlanError, check_champion, differences, settle
from retraining.stages import RELEASE
from retraining.switching import Refused
from serving.collection.errors import CollectionError
from training.recipe.presets import PRESETS

DONE, FAILED, NOT_BETTER, BUSY, REFUSED = 0, 1, 3, 4, 5


def retrain(asked: Plan, work: Path, given: argparse.Namespace, *, locks: Sequence[int]) -> dict[str, Any]:
    """Begin a retraining, or go on with the one that was begun; returns its summary."""
    sweep(work)
    past = last_summaries(work)
    found = unfinished(work)
    begun = None if given.fresh else found
    plan = _begun(begun, asked) if begun is not None else settle(asked, asked.releases.alias(CHAMPION))
    if begun is None and given.if_needed:
        verdict = needed(plan)
        if not verdict["needed"]:
            return {"outcome": "not needed", **verdict}
        print(f"needed: {'; '.join(verdict['reasons'])}", file=sys.stderr)
    if given.fresh and found is not None:  # only now that what is asked for instead will be done
        abandon(found)
    folder = begun or begin(work)
    if begun is not None:
        print(f"going on with {begun}", file=sys.stderr)
    costs = estimate_apart(plan, folder, past, polite=not given.full_speed)
    print(table(costs), file=sys.stderr)
    if (problem := lacking_room(costs, folder)) and begun is None:
        raise PlanError(problem)
    if begun is None:
        plan.write(folder)
    wishes = Wishes(force=given.force, polite=not given.full_speed, keep=given.keep)
    retraining = Retraining(plan, folder, locks=locks, wishes=wishes, costs=costs)
    try:
        return retraining.run()
    except (NotBetter, Refused) as error:
        summary = retraining.refuse(error)
        raise _Ended(REFUSED if isinstance(error, Refused) else NOT_BETTER, error, summary) from error


class _Ended(Exception):
    """It came to its end, with this exit code and summary, and no promotion."""

    def __init__(self, code: int, error: Exception, summary: dict[str, Any]) -> None:
        super().__init__(str(error))
        self.code, self.summary = code, summary


def _begun(folder: Path, asked: Plan) -> Plan:
    """The plan that was begun, if it is what is asked for now."""
    begun = Plan.read(folder)
    made = json.loads((folder / RELEASE).read_text())["release"] if (folder / RELEASE).is_file() else None
    check_champion(begun, int(Path(made).name) if made else None)
    if changed := differences(begun, settle(asked, begun.champion)):
        raise PlanError(
            f"{folder} was begun otherwise: {'; '.join(changed)}. Ask for the same, or give it up by --fresh"
        )
    return begun


def _dry_run(plan: Plan, work: Path, *, polite: bool) -> dict[str, Any]:
    folder = unfinished(work) or work / "new"
    costs = estimate_apart(plan, folder, last_summaries(work), polite=polite)
    print(table(costs), file=sys.stderr)
    if problem := lacking_room(costs, work):
        print(f"warning: {problem}", file=sys.stderr)
    return {"outcome": "dry run", "stages": [vars(cost) for cost in costs]}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.retrain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--name", required=True, help="of the releases: model_store/<name>/<version>/")
    add("--store", type=Path, default=Path("model_store"), help="default: %(default)s")
    add("--collection", type=Path, help="collection folder to learn from and to embed anew; it may be served")
    add("--images", type=Path, help="folder or zip of images: into the collection first, or to learn from alone")
    add("--labels", action="store_true", help="the folders of --images are labels")
    add(
        "--mode",
        choices=MODES,
        default="warm",
        help="begin with the champion's encoder, at random, or only fit a probe",
    )
    add("--preset", choices=PRESETS, default="", help="recipe of the pretraining (default: the champion's)")
    add("--epochs", type=int, default=0, help="length of the pretraining (default: the preset's)")
    add("--minutes", type=float, default=0.0, help="length of the pretraining, in place of --epochs")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the pretraining's configuration")
    add("--seed", type=int, default=0)
    add("--image-size", type=int, default=0, help="pixels (default: the champion's)")
    add("--no-int8", action="store_true", help="leave out int8, which takes longest of the export")
    add("--launcher", default="", metavar="WORDS", help='what starts the pretraining: "torchrun --nproc-per-node 8"')
    add("--work", type=Path, help="folder for what is between (default: runs/retrain/<name>)")
    add("--if-needed", action="store_true", help="only if the collection has drifted (python -m serving.drift)")
    add("--force", action="store_true", help="promote also what is not better; it is recorded")
    add("--fresh", action="store_true", help="give up an unfinished retraining and begin another")
    add("--full-speed", action="store_true", help="make no way for servers on this machine")
    add("--keep", action="store_true", help="keep pixels, checkpoint and embeddings at the end")
    add("--dry-run", action="store_true", help="only say what would be done, how long it takes and how much disk")
    add("--summary", type=Path, help="file for the JSON summary")
    return parser.parse_args(arguments)


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


def _run(given: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    work = (given.work or Path("runs") / "retrain" / given.name).resolve()
    if given.dry_run:
        plan = _plan(given)
        return DONE, _dry_run(settle(plan, plan.releases.alias(CHAMPION)), work, polite=not given.full_speed)
    with alone(_plan(given)) as locks:
        try:
            return DONE, retrain(_plan(given), work, given, locks=locks)
        except _Ended as ended:
            print(f"refused: {ended}", file=sys.stderr)
            return ended.code, ended.summary


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(signal.Signals(number))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    given = _arguments(arguments)
    for number in heeded():
        signal.signal(number, _stop)
    try:
        code, summary = _run(given)
    except Stopped as stop:
        code, summary = stop.exit_code, {"outcome": "stopped", "reason": str(stop)}
        print(f"{stop}; the same command goes on", file=sys.stderr)
    except Busy as error:
        code, summary = BUSY, {"outcome": "busy", "reason": str(error)}
        print(f"error: {error}", file=sys.stderr)
    except (PlanError, StageFailed, ManifestError, CollectionError, ValueError, OSError) as error:
        code, summary = FAILED, {"outcome": "failed", "reason": str(error)}
        print(f"error: {error}", file=sys.stderr)
    text = json.dumps({"exit_code": code, **summary})
    if given.summary is not None:
        try:
            publish_text(given.summary, text + "\n")
        except OSError as error:  # what was done is done: the last line has it all
            print(f"warning: the summary can't be written: {error}", file=sys.stderr)
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
