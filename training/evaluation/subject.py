"""One representation of one data set: its embeddings, and the measurements of them, each made once.

Which ones are made is decided in `training.evaluation.measurements`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.evaluation.confusion import confusion, per_class
from training.evaluation.embeddings_cache import EmbeddingsCache
from training.evaluation.few_labels import few_label_probes
from training.evaluation.finished import VERSION, Finished
from training.evaluation.label_splits import LabelSplits, fit_and_test
from training.evaluation.representations import Representation
from training.measures.embed import embed_all
from training.measures.knn import knn_accuracies
from training.measures.probe import save_probe

EMBEDDINGS, TASKS, PROBE = "embeddings", "tasks", "probe.safetensors"


@dataclass(frozen=True)
class Home:
    """A folder that keeps embeddings and finished tasks of one data set."""

    folder: Path

    @property
    def cache(self) -> EmbeddingsCache:
        """The embeddings kept here."""
        return EmbeddingsCache(self.folder / EMBEDDINGS)

    @property
    def finished(self) -> Finished:
        """The results kept here."""
        return Finished(self.folder / TASKS)


@dataclass(frozen=True)
class Subject:
    """A representation of a data set; what is measured of it is kept in `home`."""

    representation: Representation
    dataset: Dataset
    home: Home

    @property
    def name(self) -> str:
        """The representation's name."""
        return self.representation.name

    @property
    def key(self) -> dict[str, Any]:
        """What decides the embeddings: JSON."""
        return {"representation": self.representation.key, "dataset": self.dataset.digest, "evaluation": VERSION}

    @cached_property
    def h(self) -> NDArray[np.float32]:
        """The embeddings of all images, (N, D), from the cache where it has them."""
        return self.home.cache.get(self.name.replace(" ", "-"), self.key, self._embed)

    def once(
        self, task: str, work: Callable[[], Any], *, request: dict[str, Any] | None = None, files: Sequence[Path] = ()
    ) -> Any:
        """The result of `work`, made once for this subject and `request` (`training.evaluation.finished`)."""
        return self.home.finished.once(f"{task}, {self.name}", self.key | (request or {}), work, files=files)

    def measure(self, splits: LabelSplits | None) -> dict[str, Any]:
        """The accuracies that need no more than embeddings, on test, all None without labels.

        "linear_probe" {"accuracy", "C", "validation_accuracy"}, "knn" {"k10", "k200"}, "few_labels" by share,
        "per_class" accuracies by name, and "confusion", counts (C, C) of the linear probe.
        """
        if splits is None:
            return dict.fromkeys(("linear_probe", "knn", "few_labels", "per_class", "confusion"))
        probed = self.once("linear probe", lambda: self._probe(splits), files=[self.probe_path])
        return {
            "linear_probe": probed["linear_probe"],
            "knn": self.once("kNN", lambda: self._knn(splits)),
            "few_labels": self.once("few labels", lambda: few_label_probes(self.h, splits, name=self.name)),
            "per_class": dict(zip(splits.classes, per_class(np.array(probed["confusion"])), strict=True)),
            "confusion": probed["confusion"],
        }

    @property
    def probe_path(self) -> Path:
        """Where the linear probe is kept."""
        return self.home.folder / TASKS / f"{self.name.replace(' ', '-')}-{PROBE}"

    def _embed(self) -> NDArray[np.float32]:
        return embed_all(self.representation.by, self.dataset.images, description=f"embedding, {self.name}")

    def _probe(self, splits: LabelSplits) -> dict[str, Any]:
        fit, share = fit_and_test(self.h, splits)
        self.probe_path.parent.mkdir(parents=True, exist_ok=True)
        save_probe(self.probe_path, fit.probe)
        codes = np.array([splits.classes.index(name) for name in fit.probe.classes])
        predicted = codes[fit.probe.logits(self.h[splits.test]).argmax(axis=1)]
        counts = confusion(splits.labels[splits.test], predicted, classes=len(splits.classes))
        found = {"accuracy": share, "C": fit.c, "validation_accuracy": fit.validation_accuracy}
        return {"linear_probe": found, "confusion": counts.tolist()}

    def _knn(self, splits: LabelSplits) -> dict[str, float]:
        memory, queries = (splits.labelled(self.h, rows) for rows in (splits.known, splits.test))
        return knn_accuracies(memory, queries, description=f"kNN, {self.name}")
