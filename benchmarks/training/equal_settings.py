"""Ours against lightly's parts at equal settings: images a second, and nothing else.

Both train the same encoder (architecture, stem, first weights, channels_last) at the same image size, batch,
precision and optimiser, with a head of the same width, two views of the same distribution and NT-Xent at the same
temperature, without torch.compile; in turn, for about as long. What differs is how views are made, the loop itself, and
on a CPU our convolutions of small maps (`training.model.small_maps`).
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.tools.turns import in_turn
from benchmarks.training.peer import (
    BLUR_P,
    COLOUR_STRENGTH,
    HIDDEN,
    OPTIMISERS,
    OUT,
    TEMPERATURE,
    Loading,
    build_peer,
    train_peer,
)
from training.data.dataset import Dataset
from training.model.device import choose_device
from training.model.encoder import build_encoder, place
from training.recipe.config import EncoderConfig, HeadConfig, PretrainConfig, ViewsConfig
from training.run.log import read_log
from training.run.options import RunOptions
from training.run.pace import WARM_STEPS, step_seconds, with_steps
from training.run.pretrain import pretrain
from training.run.run import LOG, resolve

_CROP_MIN, _GREY_P = 0.08, 0.2  # SimCLRTransform's
_NEVER = 1 << 30


def equal_config(encoder: EncoderConfig, batch_size: int) -> PretrainConfig:
    """Our configuration that does what `benchmarks.training.peer` does."""
    return PretrainConfig(
        preset="equal",
        encoder=replace(encoder, weights="random"),
        head=HeadConfig("mlp", HIDDEN, OUT),
        views=ViewsConfig(crop_min=_CROP_MIN, colour_strength=COLOUR_STRENGTH, grey_p=_GREY_P, blur_p=BLUR_P),
        optimiser=OPTIMISERS["benchmark"],
        temperature=TEMPERATURE,
        batch_size=batch_size,
    )


def compare_speed(
    config: PretrainConfig, data: Dataset, *, seconds: float, repeats: int, workers: int, device: str
) -> dict[str, list[float]]:
    """Images a second of "ours" and "lightly", `repeats` turns each of about `seconds`."""
    config = resolve(config, data, device=choose_device(device))
    a_step = step_seconds(config, data, data.image_size, options=RunOptions(device, compile="off"))
    steps = WARM_STEPS + max(2, round(seconds / a_step))
    return in_turn(
        {
            "ours": lambda: _ours(with_steps(config, data, steps), data, device=device),
            "lightly": lambda: _lightly(config, data, steps, workers=workers, device=device),
        },
        repeats,
    )


def _ours(config: PretrainConfig, data: Dataset, *, device: str) -> float:
    timed = _each_step(config, data, device=device)[WARM_STEPS:]
    return config.batch_size * len(timed) / sum(timed)


def _each_step(config: PretrainConfig, data: Dataset, *, device: str) -> list[float]:
    """Run `config` with the loop itself, in a folder that is thrown away; the seconds of each step."""
    options = RunOptions(
        device, checkpoint_seconds=_NEVER, log_steps=1, monitor_steps=_NEVER, compile="off", tensorboard=False
    )
    with tempfile.TemporaryDirectory() as folder:
        pretrain(data, Path(folder), config, options)
        return _differences([entry["seconds"] for entry in read_log(Path(folder, LOG))])


def _differences(ends: Sequence[float]) -> list[float]:
    return [end - before for before, end in zip([0.0, *ends[:-1]], ends, strict=True)]


def _lightly(config: PretrainConfig, data: Dataset, steps: int, *, workers: int, device: str) -> float:
    encoder = place(build_encoder(config.encoder, seed=config.seed), choose_device(device))
    peer = build_peer(encoder, optimiser=config.optimiser, precision=config.precision, channels_last=True)
    loading = Loading(data.image_size, config.batch_size, workers)
    ends = train_peer(peer, data, loading, done=lambda done, _: done >= steps).ends
    return config.batch_size * (steps - WARM_STEPS) / (ends[-1] - ends[WARM_STEPS - 1])
