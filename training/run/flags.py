"""The parsed flags of `simclr pretrain` as a configuration and as options."""

import argparse
import logging
from dataclasses import fields, replace

from training.data.dataset import Dataset
from training.recipe.config import PretrainConfig, override
from training.recipe.presets import preset
from training.recipe.values import parse
from training.run.options import RunOptions
from training.run.pace import scaled
from training.run.run import CHECKPOINT, stored_config, training_rows
from training.run.start import start_of

logger = logging.getLogger(__name__)


def run_options(flags: argparse.Namespace) -> RunOptions:
    """How to carry the run out. Raises ValueError."""
    return RunOptions(**{field.name: getattr(flags, field.name) for field in fields(RunOptions)})


def configuration(flags: argparse.Namespace, dataset: Dataset) -> PretrainConfig:
    """The preset for these images, and what the flags change of it. Raises ValueError."""
    changes = dict(_changed(change) for change in flags.set)
    epochs = parse(changes.get("epochs"))
    known = epochs if type(epochs) is int else None  # what is no number, `override` refuses
    recipe = preset(flags.preset, images=len(training_rows(dataset)), image_size=dataset.image_size, epochs=known)
    if flags.start_from is not None:
        start = start_of(flags.start_from)
        recipe = replace(recipe, start=start.digest, encoder=replace(start.encoder, weights="random"))
    if flags.minutes is None:
        return override(recipe, changes)
    if length := {"epochs", "steps"} & changes.keys():
        raise ValueError(f"{length.pop()} and minutes ({flags.minutes:g}) both give the length; take one of them")
    return _in_time(override(recipe, changes), flags, dataset)


def _changed(change: str) -> tuple[str, str]:
    key, equals, value = change.partition("=")
    if not equals:
        raise ValueError(f"--set is {change!r}; KEY=VALUE is needed")
    return key, value


def _in_time(recipe: PretrainConfig, flags: argparse.Namespace, dataset: Dataset) -> PretrainConfig:
    """The recipe scaled to --minutes; a run that has begun keeps its number of steps, whatever the pace is now."""
    if flags.fresh or not (flags.out / CHECKPOINT).exists():
        return scaled(recipe, dataset, 60 * flags.minutes, options=run_options(flags))
    begun = stored_config(flags.out)
    length = f"{begun.steps} steps" if begun.steps else f"{begun.epochs} epochs"
    logger.warning("%s has begun as a run of %s, and stays one; --fresh starts over", flags.out, length)
    optimiser = replace(recipe.optimiser, warmup_epochs=begun.optimiser.warmup_epochs)
    return replace(recipe, steps=begun.steps, epochs=begun.epochs, optimiser=optimiser)
