"""What a checkpoint's encoder is worth: kNN, probes, fine-tuning, transfer, signals, each beside its baselines.

    python -m training.evaluate --data DIR --checkpoint FILE --out DIR [--augmented-probe] [--fine-tune]
                                [--transfer-to DIR ...]

Writes metrics.json, report.html, tsne.png and, with labels, probe.safetensors. What fits is fitted on train, what is
chosen is chosen on validation, and the test images are looked at once, for the numbers reported. A random encoder
and raw pixels (and the ImageNet weights that a run began from) stand in every table, so that a bad run can't look good.
Embeddings and finished tasks are kept in --out, and the same command goes on with the task it was stopped in. Left
out: what is measured and how, and the page (`training.evaluation`).
"""

import argparse
import fcntl
import json
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from core.files.durable import publish_text, sha256_of
from core.machine.interrupts import Interrupted
from training.data.dataset import Dataset
from training.evaluation.files import REPORT, intact, write_files
from training.evaluation.finished import VERSION
from training.evaluation.measurements import Extras, measure
from training.evaluation.representations import build_baselines, this_encoder
from training.evaluation.subject import Home, Subject
from training.evaluation.tables import tables
from training.evaluation.transfer import load_targets
from training.model.device import choose_device
from training.run.checkpoint import LoadedEncoder, load_encoder

logger = logging.getLogger(__name__)

METRICS = "metrics.json"
NOTHING_MORE = Extras()
PASSES, EPOCHS = 5, 20  # of --augmented-probe and --fine-tune without a number


def evaluate(
    dataset: Dataset,
    path: Path,
    out: Path,
    *,
    device: str = "auto",
    baselines: bool = True,
    extras: Extras = NOTHING_MORE,
) -> dict[str, Any]:
    """Evaluate the checkpoint at `path` on `dataset`, write the results to `out`, and return the metrics.

    The metrics (also metrics.json): "linear_probe" {"accuracy", "C", "validation_accuracy"}, "knn" {"k10", "k200"},
    "few_labels" and "fine_tuning" by share of the labels, "augmented_probe", "per_class", "confusion" (None without
    labels or unless asked for), "signals", "baselines" by name with the same, "transfer" by data set, "checkpoint",
    "dataset" and "probe_sha256" (digests), "counts", "files". Accuracies are shares in [0, 1], on test. Where all this
    is in `out` already for the same checkpoint, data and wishes, it is returned without work; what of it is there is
    reused.

    Raises ValueError for a device that is not there, if the image sizes of checkpoint and data differ, or another
    evaluation is at work in `out`; `CheckpointError` for a bad checkpoint; `SourceError` for a bad folder to transfer
    to; OSError if an image can't be read.
    """
    where = choose_device(device)
    loaded = load_encoder(path)
    _check_size(loaded, dataset)
    targets = load_targets(extras.transfer_to, image_size=dataset.image_size)
    request = _request(dataset, path, baselines=baselines, extras=extras) | {
        "transfer_to": [target.digest for target in targets.values()]
    }
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        done = _done(out, request)
        if done is not None:
            logger.info("already evaluated: %s", out / METRICS)
            return done
        for name in (METRICS, REPORT):
            (out / name).unlink(missing_ok=True)
        compared = build_baselines(dataset, loaded, where) if baselines else []
        own = this_encoder(loaded, request["checkpoint"], where)
        subjects = [Subject(one, dataset, Home(out)) for one in (own, *compared)]
        metrics = request | {"counts": dataset.facts["counts"]} | measure(subjects, loaded, extras, targets)
        metrics |= write_files(path, out, metrics, subjects[0], loaded)
        text = json.dumps(metrics, indent=1)
        publish_text(out / METRICS, text)  # last: with it, everything is there
    result: dict[str, Any] = json.loads(text)
    return result


def table(metrics: dict[str, Any]) -> str:
    """The metrics as text for a terminal: a table a measurement, one line an encoder, then the signals."""
    *accuracies, _ = tables(metrics)
    signals = ", ".join(f"{name} {value:.3f}" for name, value in metrics["signals"].items())
    return "\n\n".join([*(one.plain() for one in accuracies), f"signals: {signals}"])


def _request(dataset: Dataset, path: Path, *, baselines: bool, extras: Extras) -> dict[str, Any]:
    return {
        "checkpoint": sha256_of(path),
        "dataset": dataset.digest,
        "with_baselines": baselines,
        "augmented_passes": extras.augmented_passes,
        "fine_tune_epochs": extras.fine_tune_epochs,
        "evaluation": VERSION,
    }


def _done(out: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    try:
        metrics: dict[str, Any] = json.loads((out / METRICS).read_text())
    except (OSError, ValueError):
        return None
    asked = all(metrics.get(key) == value for key, value in request.items())
    return metrics if asked and intact(out, metrics) else None


def _check_size(loaded: LoadedEncoder, dataset: Dataset) -> None:
    size = loaded.config.encoder.image_size
    if dataset.image_size != size:
        raise ValueError(
            f"the data has images of {dataset.image_size} px, the checkpoint learnt at {size} px; prepare the data "
            f"with --image-size {size}"
        )


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One evaluation at a time in a folder; the lock goes with the process that holds it."""
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"out is {out}, where another evaluation is at work; wait, or take another") from None
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a data folder (python -m training.sources)")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N")
    parser.add_argument(
        "--baselines",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a random encoder, raw pixels, first weights",
    )
    parser.add_argument(
        "--augmented-probe",
        type=int,
        nargs="?",
        const=PASSES,
        default=0,
        metavar="PASSES",
        help=f"a probe on random crops, embedded so many times ({PASSES})",
    )
    parser.add_argument(
        "--fine-tune",
        type=int,
        nargs="?",
        const=EPOCHS,
        default=0,
        metavar="EPOCHS",
        help=f"train a copy of the encoder with labels ({EPOCHS} epochs a trial)",
    )
    parser.add_argument(
        "--transfer-to", type=Path, action="append", default=[], metavar="DATA", help="another data folder; repeatable"
    )
    return parser


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(signal.Signals(number))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module's docstring. Exit code 130 or 143 after a signal, 1 for an error."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parser().parse_args(arguments)
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        extras = Extras(options.augmented_probe, options.fine_tune, tuple(options.transfer_to))
        dataset = Dataset.load(options.data)
        wishes: dict[str, Any] = {"device": options.device, "baselines": options.baselines, "extras": extras}
        print(table(evaluate(dataset, options.checkpoint, options.out, **wishes)))
        print(f"\nreport: {options.out / REPORT}")
    except Interrupted as stop:
        logger.info("\n%s; what is finished is kept. The same command goes on from there", stop)
        sys.exit(stop.exit_code)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
