"""SimCLR pretraining (Chen et al. 2020, Algorithm 1): the loop over a run's steps.

Trains on the train and validation images, of which no label is used, and never on the test images. A run in the same
folder with the same settings resumes where it was saved, to the same bits on a CPU; a finished one returns at once.
Under torchrun the processes share every batch, and learn what one would. A step is in `training.run.step`.
"""

import logging
import math
import signal
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import torch

from core.machine.interrupts import Interrupted, Interrupts, Waiting
from training.data.dataset import Dataset
from training.errors import NonFiniteLoss
from training.model.device import should_compile
from training.model.distributed import (
    on_first_rank,
    own_device,
    rank,
    shared,
    stop_together,
    world_size,
)
from training.model.optimise import build_schedule
from training.recipe.config import PretrainConfig
from training.run.batches import Batches
from training.run.checkpoint import TrainingState
from training.run.log import read_log
from training.run.options import DEFAULTS, RunOptions
from training.run.recorder import recorder
from training.run.run import CHECKPOINT, LOG, LOSS_PICTURE, open_run
from training.run.step import Inputs, build_network, own_batches, prepare, train_step

logger = logging.getLogger(__name__)
_PATIENCE, _PATIENCE_AT_START = 10.0, 60.0  # seconds for images once the run was asked to stop; workers start slowly


def pretrain(dataset: Dataset, out: Path, config: PretrainConfig, options: RunOptions = DEFAULTS) -> Path:
    """Run `config` on `dataset` to its end, in the folder `out`; returns the checkpoint's path.

    Raises ValueError (another run in `out`, too few images), `CheckpointError`, `NonFiniteLoss`, OSError (a full
    disk, images that can't be read), `PeerError` (another process failed), or `Interrupted` after saving on SIGINT
    or SIGTERM.
    """
    out.mkdir(parents=True, exist_ok=True)
    device = own_device(options.device)
    state = open_run(dataset, out, config, device=device, fresh=options.fresh, start_from=options.start_from)
    if state.step == state.total_steps:
        logger.info("already finished: %s (%d steps)", out / CHECKPOINT, state.step)
    else:
        train(state, dataset, out, options)
    if rank() == 0:
        from training.measures.chart_files import loss_curve  # matplotlib is slow, also at the start of every worker

        loss_curve(read_log(out / LOG), out / LOSS_PICTURE)
    return out / CHECKPOINT


def train(state: TrainingState, dataset: Dataset, out: Path, options: RunOptions) -> None:
    """Take every step from `state.step` on, logging and saving as `options` say."""
    device = next(state.encoder.parameters()).device
    batches = own_batches(state, dataset)
    warmup = min(round(state.config.optimiser.warmup_epochs * batches.steps_per_epoch), state.total_steps - 1)
    schedule = build_schedule(state.optimiser, total=state.total_steps, warmup=warmup, done=state.step)
    network = build_network(state, compiled=should_compile(options.compile, device, processes=world_size()))
    state.encoder.train()
    state.head.train()
    with (
        Interrupts() as interrupts,
        closing(_stream(state, batches, options.workers)) as stream,
        recorder(state, dataset, out, options, batches.steps_per_epoch) as record,
    ):
        inputs = _first(stream, device, interrupts)
        while inputs is not None:
            rate = float(schedule.get_last_lr()[0])
            own_loss = train_step(state, network, inputs)
            inputs, error = _next(stream, interrupts)  # on the CPU, while the device computes
            error = error or record.error
            events = [float(interrupts.received or 0), float(record.due(state.step + 1)), float(error is not None)]
            losses, stops, due, failed = zip(*shared([float(own_loss), *events], device), strict=True)
            stop_together(error, failed)
            loss = sum(losses) / len(losses)
            if not math.isfinite(loss):
                raise NonFiniteLoss(_diagnosis(state, loss, rate))  # before the step: the weights stay good
            state.optimiser.step()
            schedule.step()
            state.step += 1
            record.record(loss, rate)
            if any(stops) or any(due) or inputs is None:
                on_first_rank(record.save, device)
            if any(stops):
                raise Interrupted(signal.Signals(int(max(stops))))
        if state.step < state.total_steps and interrupts.received is not None:  # not even the first images came
            raise Interrupted(interrupts.received)


def _stream(state: TrainingState, batches: Batches, workers: int) -> Generator[Inputs]:
    """The inputs of every step that is left."""
    first, total = state.step, state.total_steps
    with closing(batches.between(first, total, workers=workers)) as read:
        for step, images in enumerate(read, first):
            yield prepare(state.config, images, step, total=total)


def _first(stream: Iterator[Inputs], device: torch.device, interrupts: Interrupts) -> Inputs | None:
    """The first inputs of every process, or the error of all."""
    inputs, error = _next(stream, interrupts, _PATIENCE_AT_START)
    stop_together(error, [failed for (failed,) in shared([float(error is not None)], device)])
    return inputs


def _next(
    stream: Iterator[Inputs], interrupts: Interrupts, patience: float = _PATIENCE
) -> tuple[Inputs | None, OSError | None]:
    """The next inputs, None at the end; or why they can't be read, which the other processes must hear first.

    Also None if a signal asks to stop and the process that reads them hangs.
    """
    try:
        with interrupts.patient(patience):
            return next(stream, None), None
    except OSError as error:
        return None, error
    except Waiting:
        return None, None


def _diagnosis(state: TrainingState, loss: float, rate: float) -> str:
    gradients = [p.grad for p in state.parameters().values() if p.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    return (
        f"the loss is {loss} at step {state.step} of {state.total_steps} (lr {rate:.3g}, "
        f"gradient norm {norm:.3g}, precision {state.config.precision}). The last checkpoint is untouched. "
        "Try a lower --lr, a longer warm-up (--set optimiser.warmup_epochs=N), --precision fp32, or a higher "
        "--temperature"
    )
