"""SimCLR pretraining (Chen et al. 2020, Algorithm 1): the loop, and its command.

    python -m training.pretrain --data DIR --out DIR --preset NAME [--epochs 20] [--set views.flip_p=0] ...

Trains on the train and validation images (no label is used) and never on the test images. A run in the same
--out with the same settings resumes where it was saved, to the same bits on a CPU; a finished one returns at
once. Left out: several processes, compilation.
"""

import argparse
import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from training.batches import Batches, views_generator
from training.checkpoint import TrainingState, save
from training.config import PretrainConfig, override
from training.dataset import Dataset
from training.device import choose_device
from training.interrupts import Interrupted, Interrupts
from training.log import Log, read_log
from training.nt_xent import nt_xent
from training.optimise import build_schedule
from training.pixels import normalise
from training.presets import PRESETS, preset
from training.report import loss_curve
from training.run import CHECKPOINT, LOG, LOSS_PICTURE, open_run, training_rows
from training.views import two_views

logger = logging.getLogger(__name__)


class NonFiniteLoss(RuntimeError):
    """Training that diverged; the message says where and what to try."""


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out, without effect on what it learns. Times in seconds."""

    device: str = "auto"
    checkpoint_seconds: float = 60.0
    log_steps: int = 10
    fresh: bool = False


def pretrain(dataset: Dataset, out: Path, config: PretrainConfig, options: RunOptions = RunOptions()) -> Path:
    """Run `config` on `dataset` to its end, in the folder `out`; returns the checkpoint's path.

    Raises ValueError (another run in `out`, too few images), `CheckpointError`, `NonFiniteLoss`, or
    `Interrupted` after saving on SIGINT or SIGTERM.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = open_run(dataset, out, config, device=choose_device(options.device), fresh=options.fresh)
    if state.step == state.total_steps:
        logger.info("already finished: %s (%d steps)", out / CHECKPOINT, state.step)
    else:
        train(state, dataset, out, options)
    if not (out / LOSS_PICTURE).exists() or state.step == state.total_steps:
        loss_curve(read_log(out / LOG), out / LOSS_PICTURE)
    return out / CHECKPOINT


def train(state: TrainingState, dataset: Dataset, out: Path, options: RunOptions) -> None:
    """Take every step from `state.step` on, logging and saving as `options` say."""
    config, device = state.config, next(state.encoder.parameters()).device
    batches = Batches(
        dataset.images, training_rows(dataset), batch_size=config.batch_size, seed=config.seed, device=device
    )
    warmup = min(round(config.optimiser.warmup_epochs * batches.steps_per_epoch), state.total_steps - 1)
    schedule = build_schedule(state.optimiser, total=state.total_steps, warmup=warmup, done=state.step)
    recorder = _Recorder(state, out, options, batches.steps_per_epoch)
    state.encoder.train()
    state.head.train()
    with recorder, Interrupts() as interrupts:
        while state.step < state.total_steps:
            rate = float(schedule.get_last_lr()[0])
            loss = train_step(state, batches(state.step))
            if not math.isfinite(loss):
                raise NonFiniteLoss(_diagnosis(state, loss, rate))  # before the step: the weights stay good
            state.optimiser.step()
            schedule.step()
            state.step += 1
            recorder.record(loss, rate)
            if interrupts.received:
                save(out / CHECKPOINT, state)
                raise Interrupted(interrupts.received)
        save(out / CHECKPOINT, state)


def train_step(state: TrainingState, images: Tensor) -> float:
    """Algorithm 1 for one batch, uint8 (N, S, S, 3): views, embeddings h, projections z, loss, gradients.

    Gradients are left in the parameters; nothing steps. Returns the loss.
    """
    config = state.config
    generator = views_generator(config.seed, state.step)
    views = torch.cat(two_views(images, config.views, generator))
    views = normalise(views, state.normalisation).contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
        h = state.encoder(views)
        z = state.head(h)
    first, second = z.chunk(2)
    loss = nt_xent(first, second, config.temperature)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    return float(loss.detach())


def _diagnosis(state: TrainingState, loss: float, rate: float) -> str:
    gradients = [p.grad for p in state.parameters().values() if p.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    return (
        f"the loss is {loss} at step {state.step} of {state.total_steps} (lr {rate:.3g}, "
        f"gradient norm {norm:.3g}, precision {state.config.precision}). The last checkpoint is untouched. "
        "Try a lower --lr, a longer warm-up (--set optimiser.warmup_epochs=N), --precision fp32, or a higher "
        "--temperature"
    )


class _Recorder:
    """Progress bar, log lines and periodic checkpoints of one run; a context manager."""

    def __init__(self, state: TrainingState, out: Path, options: RunOptions, steps_per_epoch: int) -> None:
        self.state, self.path, self.options = state, out / CHECKPOINT, options
        self.steps_per_epoch = steps_per_epoch
        self.log = Log(out / LOG, done=state.step)
        self.bar = tqdm(total=state.total_steps, initial=state.step, desc="pretraining", unit=" steps")
        self.losses: list[float] = []
        self.window = self.last = self.saved = time.monotonic()

    def __enter__(self) -> "_Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        self.log.__exit__(None, None, None)

    def record(self, loss: float, rate: float) -> None:
        """Note one finished step."""
        state, now = self.state, time.monotonic()
        state.seconds += now - self.last
        self.losses.append(loss)
        self.bar.update()
        if state.step % self.options.log_steps == 0 or state.step == state.total_steps:
            self._write(rate, now)
        if self._due(now):
            save(self.path, state)
            self.saved = time.monotonic()
        self.last = time.monotonic()

    def _write(self, rate: float, now: float) -> None:
        state = self.state
        state.loss = sum(self.losses) / len(self.losses)
        speed = len(self.losses) * state.config.batch_size / max(now - self.window, 1e-9)
        entry: dict[str, Any] = {
            "step": state.step,
            "epoch": round(state.step / self.steps_per_epoch, 4),
            "loss": state.loss,
            "lr": rate,
            "images_per_s": round(speed, 2),
            "seconds": round(state.seconds, 3),
        }
        self.log.write(entry)
        self.bar.set_postfix_str(f"loss {state.loss:.3f}, lr {rate:.3g}, {speed:.0f} images/s")
        self.losses, self.window = [], now

    def _due(self, now: float) -> bool:
        """At the first end of an epoch after the interval, or after ten intervals within a long epoch."""
        since = now - self.saved
        at_end = self.state.step % self.steps_per_epoch == 0
        return since >= self.options.checkpoint_seconds * (1 if at_end else 10)


_FLAGS: dict[str, str] = {
    "epochs": "epochs",
    "batch_size": "batch_size",
    "lr": "optimiser.lr",
    "architecture": "encoder.architecture",
    "stem": "encoder.stem",
    "weights": "encoder.weights",
    "temperature": "temperature",
    "head": "head.kind",
    "seed": "seed",
    "precision": "precision",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.pretrain", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a data folder (python -m training.sources)")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--preset", default="quickstart", choices=PRESETS)
    for flag, key in _FLAGS.items():
        parser.add_argument(f"--{flag.replace('_', '-')}", help=f"sets {key}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="sets any key")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N")
    parser.add_argument("--checkpoint-seconds", type=float, default=60.0, help="save at most this often")
    parser.add_argument("--log-steps", type=int, default=10, help="steps a log line")
    parser.add_argument("--fresh", action="store_true", help="forget the run in --out and start over")
    return parser


def _overridden(recipe: PretrainConfig, options: argparse.Namespace) -> PretrainConfig:
    changes = {key: value for flag, key in _FLAGS.items() if (value := getattr(options, flag)) is not None}
    for change in options.set:
        key, equals, value = change.partition("=")
        if not equals:
            raise ValueError(f"--set is {change!r}; KEY=VALUE is needed")
        changes[key] = value
    if "epochs" in changes and "optimiser.warmup_epochs" not in changes:
        epochs = int(changes["epochs"])
        if epochs <= recipe.optimiser.warmup_epochs:
            changes["optimiser.warmup_epochs"] = str(epochs / 4)
            logger.info("%d epochs are no more than the warm-up, which becomes a quarter of them", epochs)
    return override(recipe, changes)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module's docstring. Exit code 130 or 143 after a signal, 1 for an error."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parser().parse_args(arguments)
    run_options = RunOptions(options.device, options.checkpoint_seconds, options.log_steps, options.fresh)
    try:
        dataset = Dataset.load(options.data)
        recipe = preset(options.preset, images=len(training_rows(dataset)), image_size=dataset.image_size)
        print(pretrain(dataset, options.out, _overridden(recipe, options), run_options))
    except Interrupted as stop:
        logger.info("%s; saved. The same command resumes", stop)
        sys.exit(stop.exit_code)
    except (ValueError, OSError, NonFiniteLoss) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
