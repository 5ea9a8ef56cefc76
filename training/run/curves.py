"""The numbers of log.jsonl once more, as curves for TensorBoard: `tensorboard --logdir OUT`.

A resumed run purges the steps that its checkpoint does not know, as the log does. Everything else
reads log.jsonl.
"""

from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
_TRAINING = ("loss", "floor", "lr", "view_size", "epoch")
_SPEED = ("images_per_s", "seconds", "eta_seconds")


class Curves:
    """Curves to append to, in `out`/tensorboard, from step `done` on."""

    def __init__(self, out: Path, *, done: int = 0) -> None:
        self._writer = SummaryWriter(str(out / FOLDER), purge_step=done + 1)

    def write(self, entry: dict[str, Any]) -> None:
        """Add every number of a log line at its `step`. Raises OSError once the disk is full."""
        for name, value in entry.items():
            if name != "step":
                self._writer.add_scalar(f"{_group(name)}/{name}", value, entry["step"])

    def flush(self) -> None:
        """Wait until every number so far is in the file. Raises OSError if that can't be."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is buffered. Raises OSError if that can't be."""
        self._writer.close()


def _group(name: str) -> str:
    return "training" if name in _TRAINING else "speed" if name in _SPEED else "signals"
