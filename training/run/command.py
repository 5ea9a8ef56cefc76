"""`simclr pretrain`: its flags, and what it says. With several GPUs it is `torchrun ... -m training.run`.

What the flags mean is documented where it is used: in `training.recipe.config` and `training.run.options`.
"""

import argparse
import logging
import shlex
from pathlib import Path

from core.command_line.command import Command
from core.command_line.endings import conclude
from core.machine.interrupts import Interrupted
from training.errors import NonFiniteLoss, PeerError
from training.recipe.presets import PRESETS
from training.run.options import DEFAULTS

_KEYS: dict[str, str] = {
    "epochs": "epochs",
    "batch-size": "batch_size",
    "chunk-size": "chunk_size",
    "lr": "optimiser.lr",
    "architecture": "encoder.architecture",
    "stem": "encoder.stem",
    "weights": "encoder.weights",
    "loss": "loss",
    "temperature": "temperature",
    "views": "views.count",
    "head": "head.kind",
    "seed": "seed",
    "precision": "precision",
}
_DETAILS = """examples:
  simclr pretrain --data DIR --out DIR --preset cifar10_cpu --minutes 120
  simclr pretrain --data DIR --out DIR --epochs 20 --set views.flip_p=0
  simclr pretrain --data DIR --out DIR --start-from model_store/photographs/1
  torchrun --nproc-per-node 4 -m training.run --data DIR --out DIR --preset cifar10

The same command resumes a run that was stopped, and returns at once if the run is finished."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="a data folder, which simclr prepare writes")
    add("--out", type=Path, required=True, metavar="DIR", help="the run's folder")
    add("--preset", default="quickstart", choices=PRESETS, help="the recipe (%(default)s)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="set any key of the configuration; repeatable")
    for flag, key in _KEYS.items():
        add(f"--{flag}", dest="set", action="append", type=f"{key}={{}}".format, metavar="VALUE", help=f"set {key}")
    add("--minutes", type=float, help="as many steps as take this long here, instead of --epochs")
    add("--json", action="store_true", help="print the result as one line of JSON")
    _add_run_options(parser)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, DEFAULTS
    add("--device", default=default.device, help="auto (the default), cpu, cuda or cuda:N")
    add("--checkpoint-seconds", type=float, default=default.checkpoint_seconds, help="save at most this often")
    add("--log-steps", type=int, default=default.log_steps, help="steps between log lines (%(default)s)")
    add("--monitor-steps", type=int, default=default.monitor_steps, help="steps between measured signals (0: epochs)")
    add("--workers", type=int, default=default.workers, help="processes that read images the device has no room for")
    add("--compile", default=default.compile, help="auto (the default, which is on for CUDA), on or off")
    add("--start-from", type=Path, metavar="PATH", help="begin with the encoder of a release or a checkpoint")
    add("--tensorboard", action=argparse.BooleanOptionalAction, default=default.tensorboard, help="curves in --out")
    add("--fresh", action="store_true", help="forget the run in --out and start over")


def _run(given: argparse.Namespace) -> int:
    from training.data.dataset import Dataset
    from training.model.distributed import process_group, rank
    from training.run.flags import configuration, run_options
    from training.run.pretrain import pretrain

    with process_group(given.device):
        speaks = rank() == 0
        if not speaks:
            logging.disable(logging.WARNING)
        dataset = Dataset.load(given.data)
        try:
            path = pretrain(dataset, given.out, configuration(given, dataset), run_options(given))
        except Interrupted as stop:
            if speaks:
                raise
            return stop.exit_code
    if speaks:
        _conclude(given, path)
    return 0


def _conclude(given: argparse.Namespace, path: Path) -> None:
    from training.run.checkpoint import read_metadata

    state = read_metadata(path)
    took = f"{state['seconds'] / 60:.1f} minutes of training"
    loss = f", and its last loss is {state['loss']:.3f}" if state["loss"] is not None else ""
    evaluation = given.out.parent / "evaluation"
    conclude(
        f"The encoder is in {path}: {state['step']:,} steps took {took}{loss}.",
        then=shlex.join(
            ["simclr", "evaluate", "--data", str(given.data), "--checkpoint", str(path), "--out", str(evaluation)]
        ),
        as_json=given.json,
        checkpoint=path,
        steps=state["step"],
        seconds=state["seconds"],
        loss=state["loss"],
    )


COMMAND = Command(
    "pretrain",
    "Train an encoder by SimCLR, without labels.",
    _add_arguments,
    _run,
    details=_DETAILS,
    errors=(NonFiniteLoss, PeerError),
    resume="the same command resumes from the last checkpoint",
)
