"""How a run is carried out: what has no effect on what it learns."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from training.recipe.config import Compile
from training.recipe.values import between, one_of


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out, without effect on what it learns. Times in seconds.

    `monitor_steps` is how often signals are measured; 0 is at the ends of epochs, or within them in a run of fewer
    than four, at most 20 times in all. `workers` processes read ahead images that do not lie on the device. `compile`
    "auto" is on for CUDA. `start_from` is the file whose digest is the configuration's `start`.
    """

    device: str = "auto"
    checkpoint_seconds: float = 60.0
    log_steps: int = 10
    fresh: bool = False
    monitor_steps: int = 0
    workers: int = 0
    compile: Compile = "auto"
    tensorboard: bool = True
    start_from: Path | None = None

    def __post_init__(self) -> None:
        between("checkpoint_seconds", self.checkpoint_seconds, 0, 1e12)
        between("log_steps", self.log_steps, 1, 1 << 40)
        between("monitor_steps", self.monitor_steps, 0, 1 << 40)
        between("workers", self.workers, 0, 256)
        one_of("compile", self.compile, get_args(Compile))


DEFAULTS = RunOptions()
