"""A run in its folder: from a data set and a wish to a training state, new or resumed.

checkpoint.safetensors   the state (training.checkpoint)
log.jsonl                loss, rate and speed by step (training.log)
loss.png                 the loss curve of a finished run
"""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.checkpoint import CheckpointError, TrainingState, read_metadata, restore
from training.config import PretrainConfig, differing_keys, from_dict
from training.dataset import Dataset
from training.device import choose_precision
from training.encoder import build_encoder, build_head, place
from training.folders import TRAIN, VALIDATION
from training.optimise import build_optimiser
from training.pixels import IMAGENET, channel_statistics

logger = logging.getLogger(__name__)

CHECKPOINT, LOG, LOSS_PICTURE = "checkpoint.safetensors", "log.jsonl", "loss.png"


def training_rows(dataset: Dataset) -> NDArray[np.int64]:
    """The rows to pretrain on: train and validation, for no label is used; test never."""
    rows = dataset.rows(TRAIN, VALIDATION)
    if len(rows) < 2:
        raise ValueError(f"{dataset.folder} has {len(rows)} training images; at least 2 are needed")
    return rows


def resolve(config: PretrainConfig, dataset: Dataset, *, device: torch.device) -> PretrainConfig:
    """The configuration with the data's image size, the stem and precision in use, and a batch that fits."""
    encoder = replace(config.encoder, image_size=dataset.image_size)
    encoder = replace(encoder, stem=encoder.resolved_stem)
    count = len(training_rows(dataset))
    if config.batch_size > count:
        logger.warning("the batch of %d is reduced to the %d training images", config.batch_size, count)
    return replace(
        config,
        encoder=encoder,
        batch_size=min(config.batch_size, count),
        precision=choose_precision(config.precision, device, encoder),
    )


def open_run(
    dataset: Dataset, out: Path, config: PretrainConfig, *, device: torch.device, fresh: bool = False
) -> TrainingState:
    """The state of the run in `out`, resumed if it has a checkpoint (and not `fresh`), else new.

    `config.precision` "auto" keeps a checkpoint's precision, so that a run may move between machines.
    Raises ValueError if `out` holds a run of another configuration or of other data, `CheckpointError` if its
    checkpoint can't be read.
    """
    path = out / CHECKPOINT
    if fresh:
        path.unlink(missing_ok=True)
    resuming = path.exists()
    if resuming and config.precision == "auto":
        config = replace(config, precision=_stored(path).precision)
    config = resolve(config, dataset, device=device)
    if resuming:
        _check_same(path, config, dataset)
    state = _new_state(config, dataset, device)
    if resuming:
        restore(path, state)
        logger.info("resuming %s at step %d of %d", out, state.step, state.total_steps)
    return state


def _new_state(config: PretrainConfig, dataset: Dataset, device: torch.device) -> TrainingState:
    rows = training_rows(dataset)
    encoder = place(build_encoder(config.encoder, seed=config.seed), device)
    head = build_head(config.head, encoder.embedding_dim, seed=config.seed).to(device)
    imagenet = config.encoder.weights == "imagenet"
    return TrainingState(
        config=config,
        encoder=encoder,
        head=head,
        optimiser=build_optimiser(nn.ModuleList([encoder, head]), config.optimiser),
        normalisation=IMAGENET if imagenet else channel_statistics(dataset.images, rows),
        dataset={"name": dataset.facts["name"], "digest": dataset.digest, "images": len(rows)},
        total_steps=config.epochs * (len(rows) // config.batch_size),
    )


def _stored(path: Path) -> PretrainConfig:
    return from_dict(read_metadata(path)["config"])


def _check_same(path: Path, config: PretrainConfig, dataset: Dataset) -> None:
    differences = differing_keys(_stored(path), config)
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
