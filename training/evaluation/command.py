"""`simclr evaluate`: what a checkpoint is worth."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from core.command_line.command import Command, main
from core.command_line.endings import conclude

_PASSES, _EPOCHS = 5, 20  # of --augmented-probe and --fine-tune without a number
_DETAILS = """Writes metrics.json, report.html, tsne.png and, with labels, probe.safetensors. A random encoder and raw
pixels are measured beside the checkpoint, so that a bad run can't look good.

example:
  simclr evaluate --data DIR --checkpoint DIR/checkpoint.safetensors --out DIR --augmented-probe"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="a data folder, which simclr prepare writes")
    add("--checkpoint", type=Path, required=True, metavar="FILE", help="what simclr pretrain wrote")
    add("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    add("--device", default="auto", help="auto (the default), cpu, cuda or cuda:N")
    compared = "compare with a random encoder, raw pixels and the first weights"
    add("--baselines", action=argparse.BooleanOptionalAction, default=True, help=compared)
    optional: dict[str, Any] = {"type": int, "nargs": "?", "default": 0}
    passes = f"fit a probe on random crops too, embedded this many times ({_PASSES} if not said)"
    add("--augmented-probe", **optional, const=_PASSES, metavar="PASSES", help=passes)
    epochs = f"train a copy of the encoder with labels too, this long a trial ({_EPOCHS} epochs if not said)"
    add("--fine-tune", **optional, const=_EPOCHS, metavar="EPOCHS", help=epochs)
    another = "measure on another data folder too; repeatable"
    add("--transfer-to", type=Path, action="append", default=[], metavar="DIR", help=another)
    add("--json", action="store_true", help="print the result as one line of JSON")


def _run(given: argparse.Namespace) -> int:
    from training.data.dataset import Dataset
    from training.evaluation.evaluate import METRICS, evaluate
    from training.evaluation.files import REPORT
    from training.evaluation.measurements import Extras
    from training.evaluation.tables import in_terminal

    extras = Extras(given.augmented_probe, given.fine_tune, tuple(given.transfer_to))
    data = Dataset.load(given.data)
    metrics = evaluate(data, given.checkpoint, given.out, device=given.device, baselines=given.baselines, extras=extras)
    if not given.json:
        print(f"{in_terminal(metrics)}\n")
    words = ["--data", given.data, "--checkpoint", given.checkpoint, "--evaluation", given.out]
    conclude(
        f"The report is {given.out / REPORT}.",
        then=shlex.join(["simclr", "export", "--name", str(data.facts["name"]), *map(str, words)]),
        as_json=given.json,
        report=given.out / REPORT,
        metrics=given.out / METRICS,
        **{key: metrics[key] for key in ("linear_probe", "knn", "signals")},
    )
    return 0


COMMAND = Command(
    "evaluate",
    "Measure a checkpoint's encoder, beside baselines.",
    _add_arguments,
    _run,
    details=_DETAILS,
    resume="what is finished is kept, and the same command goes on from there",
)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
