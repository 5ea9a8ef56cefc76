"""What a retraining will cost: time and disk by stage, before anything is done.

Times come from the last retraining here, by item; of pretraining from some steps taken now on this machine. Where
there was no retraining yet they are those of two cores with small images, and say so.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from core.command_line.command import parser_of
from core.images.folders import open_source
from retraining.commands import Commands
from retraining.costs import Cost
from retraining.journal import Journal
from retraining.plan import Plan, items_of
from retraining.stages import stages_of
from training.data.dataset import Dataset
from training.model.encoder import build_encoder
from training.recipe.config import PretrainConfig
from training.run.command import COMMAND as PRETRAIN
from training.run.flags import configuration, run_options
from training.run.pace import step_seconds

_TYPICAL = {"ingest": 5e-3, "freeze": 5e-4, "evaluate": 8e-3, "export": 2e-3, "embed": 4e-3}  # seconds an item
_FIXED = {"ingest": 5.0, "freeze": 3.0, "evaluate": 10.0, "export": 45.0, "embed": 5.0, "promote": 15.0}
_TRAINED_SHARE = 0.9  # of the items; the rest is held out
_TIMED_IMAGES = 4  # batches of images, to take steps on
# bytes by those of the weights: a checkpoint has momentum as well; a release has five files, and its archive three
_CHECKPOINT, _RELEASE = 2.2, 5.7
_SPACE = 1.25, 5.0  # of a vector: in SQLite with its indices; in a base with its mapped vectors, by its dimensions


def estimate(plan: Plan, folder: Path, past: Sequence[dict[str, Any]]) -> list[Cost]:
    """The cost of every stage that is left; `past` are the summaries of earlier retrainings, newest first."""
    items = items_of(Path(plan.collection)) if plan.collection else 0
    if plan.images:
        names = open_source(Path(plan.images)).names()
        items += sum(1 for _ in tqdm(names, desc="counting", unit=" files", leave=False))
    size = plan.image_size or 32
    config = _recipe(plan, folder, items, size) if plan.mode != "probe" else None
    costs = []
    journal = Journal(folder)
    for stage in stages_of(plan):
        if journal.done(stage.name) is not None:
            continue
        if stage.name == "pretrain":
            assert config is not None
            seconds, basis = _pretraining(plan, folder, config, items, size)
        else:
            seconds, basis = _from_past(stage.name, items, past)
        disk = _disk(stage.name, plan, items=items, size=size, config=config)
        costs.append(Cost(stage.name, stage.what, seconds, disk, basis))
    return costs


def _from_past(stage: str, items: int, past: Sequence[dict[str, Any]]) -> tuple[float, str]:
    for summary in past:
        taken = summary.get("stages", {}).get(stage)
        if taken and summary.get("items"):
            fixed = min(_FIXED.get(stage, 0.0), taken["seconds"])
            return fixed + (taken["seconds"] - fixed) * items / summary["items"], "the last retraining"
    return _FIXED.get(stage, 0.0) + _TYPICAL.get(stage, 0.0) * items, "two cores, small images"


def _recipe(plan: Plan, folder: Path, items: int, size: int) -> PretrainConfig:
    flags = _pretrain_flags(plan, folder)
    flags.minutes = None  # only its length is of interest, and that is known
    return configuration(flags, _blank(int(items * _TRAINED_SHARE), size))


def _pretraining(plan: Plan, folder: Path, config: PretrainConfig, items: int, size: int) -> tuple[float | None, str]:
    if plan.minutes:
        return 60 * plan.minutes, "asked for"
    if plan.launcher:
        return None, plan.launcher.split()[0]
    flags = _pretrain_flags(plan, folder)
    images = max(2, int(items * _TRAINED_SHARE))
    batch = min(config.batch_size, images)
    steps = config.steps or config.epochs * (images // batch)
    data = _blank(min(images, _TIMED_IMAGES * batch), size)
    shares = [(stage.size, stage.share) for stage in config.resolutions] or [(size, 1.0)]
    options = run_options(flags)
    each = sum(share * step_seconds(config, data, side, options=options) for side, share in shares)
    return steps * each, "steps taken now"


def _pretrain_flags(plan: Plan, folder: Path) -> argparse.Namespace:
    return parser_of(PRETRAIN).parse_args(Commands(plan, folder).of("pretrain").arguments)


def _blank(count: int, size: int) -> Dataset:
    """A data set of black images, to take steps on; it takes no memory."""
    images = np.broadcast_to(np.zeros((1, size, size, 3), np.uint8), (count, size, size, 3))
    facts = {"name": "blank", "digest": "0" * 64, "image_size": size, "classes": None, "counts": {"train": count}}
    return Dataset(Path("."), images, [str(row) for row in range(count)], np.full(count, "train"), None, facts)


def _disk(stage: str, plan: Plan, *, items: int, size: int, config: PretrainConfig | None) -> int:
    if stage == "freeze":
        return items * size * size * 3
    if config is None or stage not in ("pretrain", "evaluate", "export", "embed"):
        return 0
    encoder = build_encoder(config.encoder, seed=None)
    weights = 4 * sum(parameter.numel() for parameter in encoder.parameters())
    vectors = 4 * items * encoder.embedding_dim
    in_sqlite, in_base = _SPACE
    return int(
        {
            "pretrain": _CHECKPOINT * weights,
            "evaluate": vectors,
            "export": _RELEASE * weights,
            "embed": in_sqlite * vectors + in_base / 4 * vectors,
        }[stage]
    )
