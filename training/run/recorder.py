"""What a run reports while it trains: progress bar, log lines, signals, and its checkpoints.

Only rank 0 has a `Recorder`; the other processes have a `SilentRecorder`, which knows the same calls.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from training.data.dataset import Dataset
from training.model.distributed import rank
from training.model.nt_xent import loss_floor
from training.run.checkpoint import TrainingState, save
from training.run.curves import Curves
from training.run.log import Log
from training.run.monitor import Monitor
from training.run.options import RunOptions
from training.run.run import CHECKPOINT, LOG

logger = logging.getLogger(__name__)

_MONITORED_MOST = 20  # times a run, if not asked otherwise
_FEW_EPOCHS = 4


class SilentRecorder:
    """Records nothing; a context manager. `error` is why something could not be recorded, until all know."""

    error: OSError | None = None

    def due(self, step: int) -> bool:
        """Whether to save after `step` steps."""
        return False

    def save(self) -> None:
        """Write the checkpoint."""

    def record(self, loss: float, rate: float) -> None:
        """Note one finished step, its loss and its learning rate."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Recorder(SilentRecorder):
    """The record of one run in its folder `out`; a context manager. `per_epoch` is in steps."""

    def __init__(self, state: TrainingState, dataset: Dataset, out: Path, options: RunOptions, per_epoch: int) -> None:
        config = state.config
        self.state, self.out, self.options, self.per_epoch = state, out, options, per_epoch
        self.floor = loss_floor(
            config.batch_size, config.views.count, config.temperature, decoupled=config.loss == "dcl"
        )
        self.monitor = Monitor(dataset, state.normalisation, config.views)
        self.monitor_steps = options.monitor_steps or _monitor_steps(state.total_steps, per_epoch)
        self.log = Log(out / LOG, done=state.step)
        self.curves = Curves(out, done=state.step) if options.tensorboard else None
        self.bar = tqdm(total=state.total_steps, initial=state.step, desc="pretraining", unit=" steps")
        self.losses: list[float] = []
        self.rate = 0.0
        self.logged = state.seconds
        self.last = self.saved = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        with suppress(*[OSError] * (error is not None)), self._writing():  # a full disk has been reported already
            self.log.__exit__(kind, error, trace)
            if self.curves is not None:
                self.curves.close()

    def due(self, step: int) -> bool:
        """At the first end of an epoch after the interval, or after ten intervals within a long epoch."""
        since = time.monotonic() - self.saved
        return since >= self.options.checkpoint_seconds * (1 if step % self.per_epoch == 0 else 10)

    def save(self) -> None:
        """Write log, curves and checkpoint; the time it takes is none of the training's.

        Where the log or a signal has failed, the checkpoint is written all the same, and then the error raised.
        """
        if self.error is None:
            self._attempt(self._flush)
        save(self.out / CHECKPOINT, self.state)
        if self.error is not None:
            raise self.error
        self.last = self.saved = time.monotonic()

    def record(self, loss: float, rate: float) -> None:
        """Note one finished step, and write a log line when it is time for one; `error` is set if that fails."""
        state = self.state
        state.seconds += time.monotonic() - self.last
        self.losses.append(loss)
        self.rate = rate
        self.bar.update()
        self._attempt(self._log_if_due)
        self.last = time.monotonic()

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            self.error = error

    def _log_if_due(self) -> None:
        state, signals = self.state, self._signals()
        if signals or state.step % self.options.log_steps == 0 or state.step == state.total_steps:
            self._write(signals)

    def _flush(self) -> None:
        """A resumed run goes on from the checkpoint: what the log does not have by then would be lost."""
        if self.losses:
            self._write({})
        if self.curves is not None:
            with self._writing():
                self.curves.flush()

    def _signals(self) -> dict[str, float]:
        state = self.state
        if state.step % self.monitor_steps and state.step != state.total_steps:
            return {}
        signals = self.monitor.measure(state.encoder)
        for warning in self.monitor.warnings(signals) if signals else ():
            logger.warning("step %d: %s", state.step, warning)
        return signals

    def _write(self, signals: dict[str, float]) -> None:
        state, steps = self.state, len(self.losses)
        state.loss = sum(self.losses) / steps
        a_step = max(state.seconds - self.logged, 1e-9) / steps
        entry: dict[str, Any] = {
            "step": state.step,
            "epoch": round(state.step / self.per_epoch, 4),
            "loss": state.loss,
            "floor": self.floor,
            "lr": self.rate,
            "view_size": state.config.view_size(state.step - 1, total=state.total_steps),
            "images_per_s": round(state.config.batch_size / a_step, 2),
            "seconds": round(state.seconds, 3),
            "eta_seconds": round(a_step * self._steps_left(), 1),
        } | signals
        with self._writing():
            self.log.write(entry)
            if self.curves is not None:
                self.curves.write(entry)
        self.bar.set_postfix_str(
            f"loss {state.loss:.3f} (floor {self.floor:.2f}), lr {self.rate:.3g}, {entry['images_per_s']:.0f} images/s"
        )
        self.losses, self.logged = [], state.seconds

    def _steps_left(self) -> float:
        """The steps that are left, each counted by the area of its views beside that of the present ones."""
        config, done, total = self.state.config, self.state.step, self.state.total_steps
        now = config.view_size(done - 1, total=total)
        return sum(
            (size / now) ** 2 * len(range(max(done, steps.start), steps.stop)) for size, steps in config.stages(total)
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(f"can't write the log {self.out / LOG}: {error}; the last checkpoint is untouched") from error


def _monitor_steps(total: int, per_epoch: int) -> int:
    """Whole epochs, at most 20 times a run; of a run of few epochs parts, so that a collapse is noticed in time."""
    if total < _FEW_EPOCHS * per_epoch:
        return math.ceil(total / _MONITORED_MOST)
    return per_epoch * math.ceil(total / per_epoch / _MONITORED_MOST)


def recorder(state: TrainingState, dataset: Dataset, out: Path, options: RunOptions, per_epoch: int) -> SilentRecorder:
    """The recorder of this process."""
    return Recorder(state, dataset, out, options, per_epoch) if rank() == 0 else SilentRecorder()
