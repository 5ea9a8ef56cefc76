"""What an evaluation leaves in its folder for people and for a release: the probe, a picture, the page.

`training.evaluation.evaluate` writes metrics.json, last of all.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.files.durable import publish_file, publish_text, sha256_of
from training.data.splits import TEST, TRAIN, VALIDATION
from training.evaluation.label_splits import LabelSplits
from training.evaluation.measurements import unseen
from training.evaluation.neighbour_samples import SAMPLES, confused, sample, spaced
from training.evaluation.report import Evidence, page
from training.evaluation.subject import PROBE, Subject
from training.measures.chart_files import tsne_map, tsne_places
from training.measures.probe import load_probe
from training.run.checkpoint import LoadedEncoder
from training.run.log import read_log
from training.run.run import LOG

TSNE_PICTURE, REPORT = "tsne.png", "report.html"


def write_files(
    path: Path, out: Path, metrics: dict[str, Any], subject: Subject, loaded: LoadedEncoder
) -> dict[str, Any]:
    """Write them to `out`; `path` is the checkpoint's, whose run's log is beside it or not.

    Returns what `intact` asks for, to go with the metrics: "files" (their names) and "probe_sha256" (None without).
    """
    dataset, splits = subject.dataset, LabelSplits.of(subject.dataset)
    for name in (PROBE, TSNE_PICTURE):  # of an evaluation of other data
        (out / name).unlink(missing_ok=True)
    if splits is not None:
        publish_file(out / PROBE, lambda partial: shutil.copyfile(subject.probe_path, partial))
    mapped, places = _map(subject)
    if len(places):
        labels = None if dataset.labels is None else dataset.labels_of(mapped)
        tsne_map(places, labels, dataset.classes, out / TSNE_PICTURE)
    evidence = Evidence(
        name=f"{path.resolve().parent.name} on {dataset.facts['name']}",
        metrics=metrics,
        dataset=dataset,
        loaded=loaded,
        log=read_log(path.parent / LOG),
        mapped=mapped,
        places=places,
        samples=subject.once("neighbours", lambda: _samples(subject)),
        confused=subject.once("worst confusions", lambda: _confused(subject, splits, metrics)),
    )
    publish_text(out / REPORT, page(evidence))
    written = [name for name in (REPORT, TSNE_PICTURE, PROBE) if (out / name).is_file()]
    return {"files": written, "probe_sha256": sha256_of(out / PROBE) if PROBE in written else None}


def intact(out: Path, metrics: dict[str, Any]) -> bool:
    """Whether the files that go with the metrics are there, and the probe is still the one that was written."""
    if not all((out / name).is_file() for name in metrics["files"]):
        return False
    return metrics["probe_sha256"] is None or metrics["probe_sha256"] == sha256_of(out / PROBE)


def _map(subject: Subject) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The rows of the t-SNE map (M,) and their places (M, 2)."""
    rows = unseen(subject.dataset)
    chosen, places = subject.once("t-SNE", lambda: [part.tolist() for part in tsne_places(subject.h[rows])])
    return rows[np.array(chosen, dtype=np.int64)], np.array(places, dtype=np.float64).reshape(-1, 2)


def _samples(subject: Subject) -> list[dict[str, Any]]:
    dataset = subject.dataset
    test, known = dataset.rows(TEST), dataset.rows(TRAIN, VALIDATION)
    return sample(subject.h, spaced(test if len(test) else known, SAMPLES), known)


def _confused(subject: Subject, splits: LabelSplits | None, metrics: dict[str, Any]) -> list[dict[str, Any]]:
    if splits is None:
        return []
    return confused(subject.h, splits, load_probe(subject.probe_path), np.array(metrics["confusion"]))
