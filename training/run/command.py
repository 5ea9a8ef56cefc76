"""The flags of `python -m training.pretrain`, and the configuration and the options that they ask for.

Left out: what they mean; that is documented where it is used, in `training.recipe.config` and `training.run.run`.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from training.data.dataset import Dataset
from training.recipe.config import PretrainConfig, override
from training.recipe.presets import PRESETS, preset
from training.recipe.values import parse
from training.run.pace import scaled
from training.run.run import CHECKPOINT, DEFAULTS, RunOptions, stored_config, training_rows
from training.run.start import start_of

logger = logging.getLogger(__name__)

_KEYS: dict[str, str] = {
    "epochs": "epochs",
    "batch_size": "batch_size",
    "chunk_size": "chunk_size",
    "lr": "optimiser.lr",
    "architecture": "encoder.architecture",
    "stem": "encoder.stem",
    "weights": "encoder.weights",
    "loss": "loss",
    "temperature": "temperature",
    "views": "views.count",
    "head": "head.kind",
    "seed": "seed",
    "precision": "precision",
}


def parse_flags(arguments: Sequence[str] | None, description: str) -> argparse.Namespace:
    """The command line, parsed; exits with status 2 and a message if it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m training.pretrain", description=description)
    parser.add_argument("--data", type=Path, required=True, help="a data folder (python -m training.sources)")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--preset", default="quickstart", choices=PRESETS)
    for flag, key in _KEYS.items():
        parser.add_argument(f"--{flag.replace('_', '-')}", help=f"sets {key}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="sets any key")
    parser.add_argument("--minutes", type=float, help="as many steps as take so long here, in place of --epochs")
    _add_run_options(parser)
    return parser.parse_args(arguments)


def run_options(flags: argparse.Namespace) -> RunOptions:
    """How to carry the run out. Raises ValueError."""
    return RunOptions(**{field.name: getattr(flags, field.name) for field in fields(RunOptions)})


def configuration(flags: argparse.Namespace, dataset: Dataset) -> PretrainConfig:
    """The preset for these images, and what the flags change of it. Raises ValueError."""
    changes = {key: value for flag, key in _KEYS.items() if (value := getattr(flags, flag)) is not None}
    for change in flags.set:
        key, equals, value = change.partition("=")
        if not equals:
            raise ValueError(f"--set is {change!r}; KEY=VALUE is needed")
        changes[key] = value
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


def _in_time(recipe: PretrainConfig, flags: argparse.Namespace, dataset: Dataset) -> PretrainConfig:
    """The recipe scaled to --minutes; a run that has begun keeps its number of steps, whatever the pace is now."""
    if flags.fresh or not (flags.out / CHECKPOINT).exists():
        return scaled(recipe, dataset, 60 * flags.minutes, options=run_options(flags))
    begun = stored_config(flags.out)
    length = f"{begun.steps} steps" if begun.steps else f"{begun.epochs} epochs"
    logger.warning("%s has begun as a run of %s, and stays one; --fresh starts over", flags.out, length)
    optimiser = replace(recipe.optimiser, warmup_epochs=begun.optimiser.warmup_epochs)
    return replace(recipe, steps=begun.steps, epochs=begun.epochs, optimiser=optimiser)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, DEFAULTS
    add("--device", default=default.device, help="auto (default), cpu, cuda, cuda:N")
    add("--checkpoint-seconds", type=float, default=default.checkpoint_seconds, help="save at most this often")
    add("--log-steps", type=int, default=default.log_steps, help="steps a log line (%(default)s)")
    add("--monitor-steps", type=int, default=default.monitor_steps, help="steps a measurement of signals; 0: epochs")
    add("--workers", type=int, default=default.workers, help="processes that read images not kept on the device")
    add("--compile", default=default.compile, help="auto (default; on CUDA), on, off")
    add("--start-from", type=Path, metavar="PATH", help="begin with the encoder of a release or a checkpoint")
    add("--tensorboard", action=argparse.BooleanOptionalAction, default=default.tensorboard, help="curves in --out")
    add("--fresh", action="store_true", help="forget the run in --out and start over")
