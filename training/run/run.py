"""A run in its folder: from a data set and a wish to a training state, new or resumed.

checkpoint.safetensors   the state (training.run.checkpoint)
log.jsonl                loss, rate, speed and signals by step (training.run.log)
tensorboard/             the same, as curves (training.run.curves)
loss.png                 the loss curve of a finished run
"""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.data.dataset import Dataset
from training.data.splits import TRAIN, UNLABELLED, VALIDATION
from training.model.device import choose_precision
from training.model.distributed import world_size
from training.model.encoder import build_encoder, build_head, place
from training.model.global_norm import with_global_statistics
from training.model.optimise import build_optimiser
from training.model.pixels import IMAGENET, channel_statistics
from training.model.small_maps import use_small_maps
from training.recipe.config import PretrainConfig, differing_keys, from_dict
from training.run.checkpoint import CheckpointError, TrainingState, read_metadata, restore
from training.run.start import Start, start_of

logger = logging.getLogger(__name__)

CHECKPOINT, LOG, LOSS_PICTURE = "checkpoint.safetensors", "log.jsonl", "loss.png"


def training_rows(dataset: Dataset) -> NDArray[np.int64]:
    """The rows to pretrain on: train, validation and what has no label, for none is used; test never."""
    rows = dataset.rows(TRAIN, VALIDATION, UNLABELLED)
    if len(rows) < 2:
        raise ValueError(f"{dataset.folder} has {len(rows)} training images; at least 2 are needed")
    return rows


def resolve(config: PretrainConfig, dataset: Dataset, *, device: torch.device) -> PretrainConfig:
    """The configuration with the data's image size, the stem and precision in use, and a batch that fits."""
    encoder = replace(config.encoder, image_size=dataset.image_size)
    encoder = replace(encoder, stem=encoder.resolved_stem)
    config = replace(config, encoder=encoder, batch_size=_fitting_batch(config.batch_size, dataset))
    smallest = replace(encoder, image_size=min(config.view_sizes))
    return replace(config, precision=choose_precision(config.precision, device, smallest))


def open_run(
    dataset: Dataset,
    out: Path,
    config: PretrainConfig,
    *,
    device: torch.device,
    fresh: bool = False,
    start_from: Path | None = None,
) -> TrainingState:
    """The state of the run in `out`, resumed if it has a checkpoint (and not `fresh`), else new.

    `config.precision` "auto" keeps a checkpoint's precision, so that a run may move between machines.
    Raises ValueError if `out` holds a run of another configuration or of other data, `CheckpointError` if its
    checkpoint can't be read.
    """
    path = out / CHECKPOINT
    resuming = path.exists() and not fresh
    if resuming and config.precision == "auto":
        config = replace(config, precision=stored_config(out).precision)
    config = resolve(config, dataset, device=device)
    if resuming:
        _check_same(path, config, dataset)
    start = start_of(start_from) if start_from is not None else None
    if config.start != (start.digest if start is not None else ""):
        raise ValueError(f"start is {config.start!r}, but --start-from is {start_from}: both must mean the same file")
    state = _new_state(config, dataset, device, start)
    if start is not None and not resuming:
        start.load(state.encoder, state.head)
    if fresh:
        path.unlink(missing_ok=True)  # only now: the new run is possible
    if resuming:
        restore(path, state)
        logger.info("resuming %s at step %d of %d", out, state.step, state.total_steps)
    return state


def stored_config(out: Path) -> PretrainConfig:
    """The configuration of the run in `out`. Raises `CheckpointError`."""
    return from_dict(read_metadata(out / CHECKPOINT)["config"])


def _new_state(config: PretrainConfig, dataset: Dataset, device: torch.device, start: Start | None) -> TrainingState:
    rows = training_rows(dataset)
    encoder = place(build_encoder(config.encoder, seed=config.seed), device)
    head = build_head(config.head, encoder.embedding_dim, seed=config.seed).to(device)
    for part in (encoder, head):
        with_global_statistics(part, device)
    if device.type == "cpu":
        use_small_maps(encoder)
    if start is not None:
        normalisation = start.normalisation
    elif config.encoder.weights == "imagenet":
        normalisation = IMAGENET
    else:
        normalisation = channel_statistics(dataset.images, rows)
    return TrainingState(
        config=config,
        encoder=encoder,
        head=head,
        optimiser=build_optimiser(nn.ModuleList([encoder, head]), config.optimiser),
        normalisation=normalisation,
        dataset={"name": dataset.facts["name"], "digest": dataset.digest, "images": len(rows)},
        total_steps=config.steps or config.epochs * (len(rows) // config.batch_size),
    )


def _fitting_batch(batch_size: int, dataset: Dataset) -> int:
    count = len(training_rows(dataset))
    if batch_size <= count:
        return batch_size
    even = max(2, count // world_size() * world_size())  # the processes share a batch evenly
    found = f"the {count}" if even == count else f"{even} of the {count}"
    logger.warning("the batch of %d is reduced to %s training images", batch_size, found)
    return even


def _check_same(path: Path, config: PretrainConfig, dataset: Dataset) -> None:
    differences = differing_keys(stored_config(path.parent), config)
    if differences:
        listed = "; ".join(f"{key} was {old!r}, now {new!r}" for key, (old, new) in differences.items())
        raise ValueError(
            f"{path.parent} holds a run of another configuration: {listed}. Choose another --out, "
            "or start over with --fresh"
        )
    trained_on = read_metadata(path)["dataset"]
    if trained_on["digest"] != dataset.digest:
        raise CheckpointError(
            f"{path.parent} holds a run on other images ({trained_on['name']}, digest "
            f"{trained_on['digest'][:12]}; now {dataset.digest[:12]}). Choose another --out, or start over with --fresh"
        )
