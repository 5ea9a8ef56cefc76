"""Everything that is measured of a checkpoint, in order, each once: the metrics of an evaluation.

`training.evaluation.evaluate` reads and checks what is evaluated, and writes what is found.
"""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.row_reader import RowReader
from training.data.splits import TEST, TRAIN, VALIDATION
from training.evaluation.augmented_probe import EPOCHS, augmented_probe
from training.evaluation.fine_tune import Setting, fine_tune_all
from training.evaluation.label_splits import LabelSplits, lacking
from training.evaluation.neighbour_samples import spaced
from training.evaluation.representations import PIXELS, RANDOM, THIS
from training.evaluation.subject import Subject
from training.evaluation.transfer import transfer
from training.measures.embed import embed_all
from training.measures.label_free import alignment_by, label_free_signals
from training.model.device import choose_precision
from training.model.encoder import build_encoder
from training.model.pixels import Normalisation
from training.run.checkpoint import LoadedEncoder

logger = logging.getLogger(__name__)

SIGNAL_IMAGES = 500
_ENOUGH = 20


@dataclass(frozen=True)
class Extras:
    """What is measured on request only: 0 and () are none. Passes over augmented views; epochs of fine-tuning.

    An epoch of the augmented probe sees one pass, so there are at most as many as epochs.
    """

    augmented_passes: int = 0
    fine_tune_epochs: int = 0
    transfer_to: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for name, most in (("augmented_passes", EPOCHS), ("fine_tune_epochs", 10_000)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted: 0 to {most}")


def unseen(dataset: Dataset) -> NDArray[np.int64]:
    """Test rows, then validation rows: no probe was fitted on these. All rows if they are too few.

    Pretraining saw validation images, without their labels.
    """
    rows = np.concatenate([dataset.rows(TEST), dataset.rows(VALIDATION)])
    return rows if len(rows) >= _ENOUGH else dataset.rows(TEST, VALIDATION, TRAIN)


def signal_rows(dataset: Dataset) -> NDArray[np.int64]:
    """At most 500 of the unseen rows, evenly taken: images lie in the order of their names, so label by label."""
    return spaced(unseen(dataset), SIGNAL_IMAGES)


def measure(
    subjects: list[Subject], loaded: LoadedEncoder, extras: Extras, targets: dict[str, Dataset]
) -> dict[str, Any]:
    """The figures of the first subject, the other ones' under "baselines", and "transfer" by data set.

    Of each: what `Subject.measure` has, "signals", "augmented_probe" and "fine_tuning" (None if not asked for, or
    without labels); "confusion" of the first only.
    """
    splits = LabelSplits.of(subjects[0].dataset)
    if splits is None:
        logger.warning("%s: kNN and probes are left out", lacking(subjects[0].dataset))
    figures = {one.name: one.measure(splits) | {"signals": _signals(one, loaded, splits)} for one in subjects}
    for one in subjects:
        figures[one.name]["augmented_probe"] = _augmented(one, loaded, splits, extras)
    for one in subjects:
        figures[one.name]["fine_tuning"] = _fine_tuning(one, loaded, splits, extras)
    for one in subjects[1:]:
        del figures[one.name]["confusion"]  # many numbers, which nobody looks up
    home, representations = subjects[0].home.folder, [one.representation for one in subjects]
    moved = {name: transfer(target, representations, home) for name, target in targets.items()}
    return figures.pop(THIS) | {"baselines": figures, "transfer": moved}


def _signals(subject: Subject, loaded: LoadedEncoder, splits: LabelSplits | None) -> dict[str, float]:
    """Alignment, uniformity, spread and RankMe, of `signal_rows`."""
    rows = signal_rows(subject.dataset)
    views = loaded.config.views

    def work() -> dict[str, float]:
        by, images = subject.representation.by, subject.dataset.images
        # without labels nothing else needs a baseline's embeddings: these few are then all that is made
        whole = splits is not None or subject.name == THIS
        h = subject.h[rows] if whole else embed_all(by, images, rows=rows, description=None)
        return {"alignment": alignment_by(by, RowReader(images)(rows), views=views), **label_free_signals(h)}

    found: dict[str, float] = subject.once("signals", work, request={"views": asdict(views), "images": len(rows)})
    return found


def _augmented(
    subject: Subject, loaded: LoadedEncoder, splits: LabelSplits | None, extras: Extras
) -> dict[str, Any] | None:
    if splits is None or not extras.augmented_passes:
        return None
    return augmented_probe(subject, splits, loaded.config.views, passes=extras.augmented_passes)


def _fine_tuning(
    subject: Subject, loaded: LoadedEncoder, splits: LabelSplits | None, extras: Extras
) -> dict[str, Any] | None:
    """Of the encoder, and of what it could have begun from: "before training" and, from scratch, random weights.

    Pixels have nothing to tune.
    """
    if splits is None or not extras.fine_tune_epochs or subject.name == PIXELS:
        return None
    device, config = subject.representation.by.device, loaded.config
    setting = Setting(
        epochs=extras.fine_tune_epochs,
        views=config.views,
        normalisation=Normalisation(loaded.mean, loaded.std),
        device=device,
        precision=choose_precision("auto", device, config.encoder),
    )
    start = replace(config.encoder, weights="random") if subject.name == RANDOM else config.encoder
    encoder = loaded.encoder if subject.name == THIS else build_encoder(start, seed=config.seed)
    return fine_tune_all(subject, encoder, splits, setting, start=start)
