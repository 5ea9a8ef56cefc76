"""Each side's recipe on the same images for the same time: what it trained, how fast, and what came of it.

Ours goes first, scaled to the time; lightly's parts then get the seconds that ours took. What a side gave is
written as soon as it is known, and a second start goes on from there: within our training exactly, within lightly's
from its beginning. `benchmarks.training.training` prints what it comes to.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.training.peer import OPTIMISERS, Loading, build_peer, train_peer
from benchmarks.training.scores import Rows, score
from core.files.durable import publish_file, publish_text
from training.data.dataset import Dataset
from training.model.device import choose_device, choose_precision
from training.model.encoder import Encoder, build_encoder, place
from training.model.pixels import IMAGENET, Normalisation, channel_statistics
from training.model.views import random_views, views_generator
from training.recipe.config import EncoderConfig, PretrainConfig, Resolution, from_dict, to_dict
from training.run.checkpoint import load_encoder
from training.run.log import read_log
from training.run.options import RunOptions
from training.run.pace import scaled
from training.run.pretrain import pretrain
from training.run.run import CHECKPOINT, LOG, training_rows

Result = dict[str, Any]
_VIEWS_REPEATS = 5
_CURVE_POINTS = 12


@dataclass(frozen=True)
class PeerRecipe:
    """What is asked of lightly's side."""

    batch_size: int
    optimiser: str
    workers: int


@dataclass(frozen=True)
class Comparison:
    """One comparison: on which images, for how many seconds, where (a folder), scored on which rows."""

    data: Dataset
    seconds: float
    folder: Path
    device: str
    rows: Rows


def train_ours(comparison: Comparison, recipe: PretrainConfig) -> Result:
    """Our recipe, scaled to the time; the result is in `folder`/ours.json.

    Returns "images", "seconds", "images_per_s", "views_share" (of a step), "linear_accuracy", "knn_accuracy",
    "curve" (pairs of seconds and the kNN accuracy that the run itself measured) and "config".
    """
    return _kept(comparison.folder / "ours.json", lambda: _ours(comparison, recipe))


def train_lightly(comparison: Comparison, encoder: EncoderConfig, recipe: PeerRecipe) -> Result:
    """Lightly's parts for the same seconds; the result is in `folder`/lightly.json, with the same keys.

    `encoder` is ours; the peer has its architecture, with the ordinary stem. "views_share" is
    `benchmarks.training.peer.PeerRun`'s.
    """
    return _kept(comparison.folder / "lightly.json", lambda: _lightly(comparison, _ordinary(encoder), recipe))


def score_untrained(comparison: Comparison, encoder: EncoderConfig) -> dict[str, Result]:
    """The scores of random weights: "random_init" with our stem, "random_init_ordinary_stem" with lightly's."""
    return _kept(comparison.folder / "untrained.json", lambda: _untrained(comparison, encoder))


def _ours(comparison: Comparison, recipe: PretrainConfig) -> Result:
    data, device, folder = comparison.data, comparison.device, comparison.folder
    options = RunOptions(device)
    plan = _kept(folder / "plan.json", lambda: to_dict(scaled(recipe, data, comparison.seconds, options=options)))
    points = RunOptions(device, monitor_steps=max(1, plan["steps"] // _CURVE_POINTS))
    pretrain(data, folder / "ours", from_dict(plan), points)
    loaded = load_encoder(folder / "ours" / CHECKPOINT)
    config, seconds = loaded.config, loaded.metadata["seconds"]
    images = loaded.metadata["step"] * config.batch_size
    encoder = place(loaded.encoder, choose_device(device))
    return {
        "images": images,
        "seconds": seconds,
        "images_per_s": images / seconds,
        "views_share": _views_seconds(config, data, device=device) * loaded.metadata["step"] / seconds,
        **score(encoder, Normalisation(loaded.mean, loaded.std), data, comparison.rows, name="ours"),
        "curve": [(entry["seconds"], entry["knn"]) for entry in read_log(folder / "ours" / LOG) if "knn" in entry],
        "config": to_dict(config),
    }


def _views_seconds(config: PretrainConfig, data: Dataset, *, device: str) -> float:
    """The seconds that making the views of one step takes, as a mean over the recipe's resolutions."""
    where = choose_device(device)
    images = torch.from_numpy(data.images[: config.batch_size].copy()).to(where)
    stages = config.resolutions or (Resolution(data.image_size, 1.0),)
    mean = 0.0
    for stage in stages:
        random_views(images, config.views, views_generator(0, 0), size=stage.size)
        start = time.perf_counter()
        for step in range(_VIEWS_REPEATS):
            random_views(images, config.views, views_generator(0, step), size=stage.size).sum().item()
        mean += stage.share * (time.perf_counter() - start) / _VIEWS_REPEATS
    return mean / sum(stage.share for stage in stages) * config.batch_size / len(images)


def _lightly(comparison: Comparison, config: EncoderConfig, recipe: PeerRecipe) -> Result:
    weights = comparison.folder / "lightly.safetensors"
    trained = _kept(
        comparison.folder / "lightly_training.json", lambda: _train_lightly(comparison, config, recipe, weights)
    )
    encoder = build_encoder(config, seed=None)
    encoder.load_state_dict(load_file(weights))
    place(encoder, choose_device(comparison.device))
    return trained | score(encoder, IMAGENET, comparison.data, comparison.rows, name="lightly")


def _train_lightly(comparison: Comparison, config: EncoderConfig, recipe: PeerRecipe, weights: Path) -> Result:
    torch.manual_seed(0)
    device = choose_device(comparison.device)
    encoder: Encoder = build_encoder(config).to(device)
    precision = choose_precision("auto", device, config)
    peer = build_peer(encoder, optimiser=OPTIMISERS[recipe.optimiser], precision=precision)
    loading = Loading(comparison.data.image_size, recipe.batch_size, recipe.workers)
    run = train_peer(peer, comparison.data, loading, done=lambda _, seconds: seconds >= comparison.seconds)
    publish_file(weights, lambda partial: save_file(encoder.state_dict(), partial))
    return {
        "images": run.images,
        "seconds": run.seconds,
        "images_per_s": run.images / run.seconds,
        "views_share": run.views_share,
        "precision": precision,
    }


def _untrained(comparison: Comparison, encoder: EncoderConfig) -> dict[str, Result]:
    data = comparison.data

    def scores(config: EncoderConfig, normalisation: Normalisation, name: str) -> Result:
        random = place(build_encoder(config), choose_device(comparison.device))
        return score(random, normalisation, data, comparison.rows, name=name)

    ours = replace(encoder, weights="random", zero_init_residual=False)
    return {
        "random_init": scores(ours, channel_statistics(data.images, training_rows(data)), "random weights"),
        "random_init_ordinary_stem": scores(_ordinary(encoder), IMAGENET, "random weights, ordinary stem"),
    }


def _ordinary(encoder: EncoderConfig) -> EncoderConfig:
    """The encoder as lightly's example has it: torchvision's own stem and first weights."""
    return replace(encoder, stem="imagenet", weights="random", zero_init_residual=False)


def _kept(path: Path, compute: Callable[[], Result]) -> Result:
    """What an earlier start has written to `path`, else what `compute` gives, written there."""
    if not path.exists():
        publish_text(path, json.dumps(compute(), indent=1))
    result: Result = json.loads(path.read_text())
    return result
