"""A recipe scaled to a time: how long its steps take on this machine, and how many fit.

A few real steps are taken at each resolution that the recipe has, on weights that are thrown away. What a long run
loses to a hot or busy machine, to signals and to checkpoints is not counted, nor what `--workers` gain.
"""

import logging
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from tqdm import tqdm

from training.data.dataset import Dataset
from training.model.device import should_compile
from training.model.distributed import own_device, rank, shared, world_size
from training.recipe.config import PretrainConfig, Resolution
from training.run.options import RunOptions
from training.run.run import open_run, training_rows
from training.run.step import build_network, own_batches, prepare, train_step

logger = logging.getLogger(__name__)

WARM_STEPS, TIMED_STEPS = 2, 5


def scaled(recipe: PretrainConfig, data: Dataset, seconds: float, *, options: RunOptions) -> PretrainConfig:
    """`recipe` with as many steps as take `seconds` on this machine, its warm-up the same share of the whole.

    Raises ValueError unless `seconds` is above 0 and finite.
    """
    if not 0 < seconds < math.inf:
        raise ValueError(f"minutes is {seconds / 60:g}; it must be above 0, and finite")
    stages = recipe.resolutions or (Resolution(data.image_size, 1.0),)
    mean = sum(stage.share * step_seconds(recipe, data, stage.size, options=options) for stage in stages)
    steps = max(2, round(seconds / mean))
    logger.info("%.2f s a step on this machine: %d steps in %.1f minutes", mean, steps, seconds / 60)
    return with_steps(recipe, data, steps)


def with_steps(recipe: PretrainConfig, data: Dataset, steps: int) -> PretrainConfig:
    """`recipe` with a number of steps in place of its epochs, its warm-up the same share of the whole."""
    images = len(training_rows(data))
    epochs = steps / (images // min(recipe.batch_size, images))
    warmup = recipe.optimiser.warmup_epochs / recipe.epochs * epochs
    optimiser = replace(recipe.optimiser, warmup_epochs=warmup)
    return replace(recipe, steps=steps, epochs=math.ceil(epochs), optimiser=optimiser)


def step_seconds(recipe: PretrainConfig, data: Dataset, size: int, *, options: RunOptions) -> float:
    """The median seconds of a training step at views of `size` pixels; of several processes, rank 0's.

    A progress bar shows the steps: one of a large recipe may take a minute.
    """
    stages = (Resolution(size, 1.0),) if recipe.resolutions else ()
    config = with_steps(replace(recipe, resolutions=stages, start=""), data, WARM_STEPS + TIMED_STEPS)
    device = own_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        state = open_run(data, Path(folder), config, device=device)
    network = build_network(state, compiled=should_compile(options.compile, device, processes=world_size()))
    state.encoder.train()
    config, taken = state.config, []
    batches = own_batches(state, data)
    timed = f"timing steps of {config.batch_size} images"
    for step in tqdm(range(WARM_STEPS + TIMED_STEPS), desc=timed, unit=" steps", leave=False, disable=rank() != 0):
        start = time.perf_counter()
        images = batches(step % batches.steps_per_epoch)
        loss = train_step(state, network, prepare(config, images, step, total=WARM_STEPS + TIMED_STEPS))
        float(loss)  # a finished step, on a GPU too
        state.optimiser.step()
        taken.append(time.perf_counter() - start)
    return shared([median(taken[WARM_STEPS:])], device)[0][0]
