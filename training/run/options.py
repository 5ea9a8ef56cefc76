"""How a run is carried out: what has no effect on what it learns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from training.recipe.config import Compile
from training.recipe.values import check


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out, without effect on what it learns. Times in seconds.

    `monitor_steps` is how often signals are measured; 0 is at the ends of epochs, or within them in a run of fewer
    than four, at most 20 times in all. `workers` processes read ahead images that do not lie on the device. `compile`
    "auto" is on for CUDA. `start_from` is the file whose digest is the configuration's `start`.
    """

    device: str = "auto"
    checkpoint_seconds: Annotated[float, Meta(ge=0, le=1e12)] = 60.0
    log_steps: Annotated[int, Meta(ge=1, le=1 << 40)] = 10
    fresh: bool = False
    monitor_steps: Annotated[int, Meta(ge=0, le=1 << 40)] = 0
    workers: Annotated[int, Meta(ge=0, le=256)] = 0
    compile: Compile = "auto"
    tensorboard: bool = True
    start_from: Path | None = None

    def __post_init__(self) -> None:
        check(self)


DEFAULTS = RunOptions()
