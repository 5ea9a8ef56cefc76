"""The probe of a probe-only release: fitted on the embeddings of an encoder that is already a release's."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from core.releases.manifest import FORMATS, Release
from serving.inference.runtime import images_of_pass, open_runtime
from training.data.dataset import Dataset
from training.data.row_reader import RowReader
from training.data.splits import TEST, TRAIN, VALIDATION
from training.evaluation.confusion import confusion, per_class
from training.evaluation.label_splits import LabelSplits, fit_and_test, lacking
from training.measures.knn import knn_accuracies
from training.measures.probe import Probe


@dataclass(frozen=True)
class Fitted:
    """A probe and its metrics, named as in an evaluation."""

    probe: Probe
    metrics: dict[str, Any]


def embed_labelled(parent: Release, data: Dataset) -> NDArray[np.float32]:
    """The embeddings (N, D) of `data` by the parent's ONNX file in float32; zeros for images that the fit does not use.

    Raises ValueError if the images have another size than the parent takes.
    """
    size = parent.manifest.input.size
    if data.image_size != size:
        raise ValueError(
            f"{data.folder} has images of {data.image_size} px, {parent.manifest.title} takes {size} px; "
            f"prepare the data with --image-size {size}"
        )
    runtime = open_runtime(parent.file(FORMATS["onnx"]))
    read, rows, width = RowReader(data.images), data.rows(TRAIN, VALIDATION, TEST), images_of_pass(size)
    h = np.zeros((len(data), parent.manifest.embedding_dim), np.float32)
    for at in tqdm(range(0, len(rows), width), desc="embedding for the probe", unit=" passes"):
        part = rows[at : at + width]
        h[part] = runtime(read(part)).embedding
    return h


def fit_on(data: Dataset, h: NDArray[np.float32], parent: Release) -> Fitted:
    """Fit on train, choose on validation, measure on test; h (N, D) has a row for every image of `data`.

    Raises ValueError if `data` lacks the labels for it, or h has another shape.
    """
    wanted = (len(data), parent.manifest.embedding_dim)
    if h.shape != wanted or h.dtype != np.float32:
        raise ValueError(
            f"embeddings are {h.dtype} {h.shape}; float32 {wanted} is needed, one row for each image of the data"
        )
    splits = LabelSplits.of(data)
    if splits is None:
        raise ValueError(f"{data.folder} can't have a probe: {lacking(data)}")
    fit, share = fit_and_test(h, splits)
    codes = np.array([splits.classes.index(name) for name in fit.probe.classes])
    predicted = codes[fit.probe.logits(h[splits.test]).argmax(axis=1)]
    counts = confusion(splits.labels[splits.test], predicted, classes=len(splits.classes))
    memory, queries = (splits.labelled(h, rows) for rows in (splits.known, splits.test))
    return Fitted(
        fit.probe,
        {
            "linear_probe": {"accuracy": share, "C": fit.c, "validation_accuracy": fit.validation_accuracy},
            "knn": knn_accuracies(memory, queries),
            "per_class": dict(zip(splits.classes, per_class(counts), strict=True)),
            "few_labels": None,
            "augmented_probe": None,
            "fine_tuning": None,
            "baselines": {},
            "transfer": {},
            "dataset": data.digest,
            "counts": data.facts["counts"],
            "files": [],
        },
    )
