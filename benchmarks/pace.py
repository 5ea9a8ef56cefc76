"""A recipe scaled to a time: how long a step takes on this machine, and how many fit.

The steps are measured with the training loop itself, a few at each resolution that the recipe has, in a folder that
is thrown away. Left out: what a long run loses to a hot or busy machine.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from training.config import PretrainConfig, Resolution
from training.dataset import Dataset
from training.log import read_log
from training.pretrain import RunOptions, pretrain
from training.run import LOG, training_rows

WARM_STEPS, TIMED_STEPS = 2, 5
NEVER = 1 << 30


def scaled(recipe: PretrainConfig, data: Dataset, seconds: float, *, device: str) -> PretrainConfig:
    """`recipe` with as many steps as take `seconds` on this machine, its warm-up the same share of the whole."""
    stages = recipe.resolutions or (Resolution(data.image_size, 1.0),)
    whole = sum(stage.share for stage in stages)
    mean = sum(stage.share / whole * step_seconds(recipe, data, stage.size, device=device) for stage in stages)
    return with_steps(recipe, data, max(2, round(seconds / mean)))


def with_steps(recipe: PretrainConfig, data: Dataset, steps: int) -> PretrainConfig:
    """`recipe` with a number of steps in place of its epochs, its warm-up the same share of the whole."""
    images = len(training_rows(data))
    epochs = steps / (images // min(recipe.batch_size, images))
    warmup = recipe.optimiser.warmup_epochs / recipe.epochs * epochs
    optimiser = replace(recipe.optimiser, warmup_epochs=warmup)
    return replace(recipe, steps=steps, epochs=math.ceil(epochs), optimiser=optimiser)


def step_seconds(recipe: PretrainConfig, data: Dataset, size: int, *, device: str) -> float:
    """The median seconds of a training step at views of `size` pixels."""
    stages = (Resolution(size, 1.0),) if recipe.resolutions else ()
    config = with_steps(replace(recipe, resolutions=stages), data, WARM_STEPS + TIMED_STEPS)
    return median(each_step(config, data, device=device)[WARM_STEPS:])


def each_step(config: PretrainConfig, data: Dataset, *, device: str) -> list[float]:
    """Run `config` in a folder that is thrown away; the seconds of each step."""
    options = RunOptions(device, checkpoint_seconds=NEVER, log_steps=1, monitor_steps=NEVER)
    with tempfile.TemporaryDirectory() as folder:
        pretrain(data, Path(folder), config, options)
        return _differences([entry["seconds"] for entry in read_log(Path(folder, LOG))])


def _differences(ends: Sequence[float]) -> list[float]:
    return [end - before for before, end in zip([0.0, *ends[:-1]], ends, strict=True)]
