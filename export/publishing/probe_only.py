"""Publish a new probe on the encoder of a release: no training, no new embeddings, the same embedding space.

The probe is fitted on train images that the parent's own ONNX file embeds (or on given embeddings), its regularisation
chosen on validation images, and its accuracy measured on test images. Every file of the parent gets the new probe and
must give the parent's embeddings bit by bit, or nothing is published; so a collection is searched as before.
"""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.files.durable import sha256_of
from core.releases.manifest import (
    FORMATS,
    MEDIANS,
    PROBE,
    SCHEMA,
    Manifest,
    Release,
    check_name,
    entry_of,
)
from export.formats.parity import EXACT, ParityError, measure
from export.formats.real_images import choose_images
from export.publishing.lineage import lineage_of, now, write_seen
from export.publishing.probe_edit import edit_onnx, edit_torchscript, edit_weights
from export.publishing.probe_fit import Fitted, embed_labelled, fit_on
from export.publishing.verdict import with_verdict
from export.publishing.versions import find, judged_beside, only_one, publish_version
from serving.inference.runtime import Outputs, open_runtime, run_in_passes
from training.data.dataset import Dataset
from training.measures.probe import Probe, save_probe
from training.run.run import LOG

_WEIGHTS = "weights.safetensors"
_CARRIED = ("loss.png", "tsne.png", LOG)  # the part of the report that is about the encoder
_PARITY_IMAGES = 256


@dataclass(frozen=True)
class _Beside:
    parent: Release
    champion: Release | None
    started: str


def publish_probe(
    parent: Release,
    data: Dataset,
    store: Path,
    *,
    name: str,
    champion: Release | None = None,
    embeddings: NDArray[np.float32] | None = None,
) -> Release:
    """Fit, edit, check, compare and publish; returns the new release, or the one already made of the same.

    `embeddings` are the parent's of every image of `data`, (N, D); without them the images are embedded here.
    Raises ValueError if `data` has no labels or images of another size, `ParityError` if a file's embeddings are not
    the parent's, bit by bit.
    """
    home, started = store / check_name(name), now()
    parent.verify()
    fitted = fit_on(data, embed_labelled(parent, data) if embeddings is None else embeddings, parent)
    with only_one(home):
        existing = find(home, _digests(parent, fitted.probe, home))
        if existing is not None and judged_beside(existing, champion):
            return existing
        beside = _Beside(parent, champion, started)
        return publish_version(home, partial(_fill, name=name, fitted=fitted, data=data, beside=beside))


def _digests(parent: Release, probe: Probe, folder: Path) -> dict[str, Any]:
    """What tells this release from others: the encoder, and the probe as it is stored."""
    path = folder / ".probe.safetensors"
    save_probe(path, probe)
    digest = sha256_of(path)
    path.unlink()
    checkpoint = parent.manifest.lineage.get("checkpoint_sha256")
    return {"checkpoint_sha256": checkpoint, "probe_sha256": digest, "encoder_of": parent.digest}


def _fill(folder: Path, version: int, *, name: str, fitted: Fitted, data: Dataset, beside: _Beside) -> None:
    """Write every file of the release into `folder`, the manifest last."""
    parent = beside.parent
    old, digests = parent.manifest, _digests(parent, fitted.probe, folder)
    _edit_files(parent, folder, fitted.probe)
    write_seen(folder, data)
    parity = _check(
        parent, folder, fitted.probe, choose_images(data, calibration=1, gallery=1).queries[:_PARITY_IMAGES]
    )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        version=version,
        created=now(),
        architecture=old.architecture,
        embedding_dim=old.embedding_dim,
        input=old.input,
        classes=fitted.probe.classes,
        files={path.relative_to(folder).as_posix(): entry_of(path) for path in files},
        parity={form: parity[form] for form in parity if form in old.parity},
        gates=_without_probe(old.gates),
        metrics=old.metrics | fitted.metrics | {"probe_sha256": digests["probe_sha256"]},
        lineage=digests | lineage_of(data, old.lineage.get("config"), parent=parent, started=beside.started),
        space=parent.space,
        jpeg_margin=old.jpeg_margin,
    )
    with_verdict(folder, manifest, beside.champion, data)


def _edit_files(parent: Release, folder: Path, probe: Probe) -> None:
    for file in (FORMATS[form] for form in parent.forms):
        edit = edit_torchscript if file.endswith(".pt") else edit_onnx
        edit(parent.file(file), folder / file, probe)
    edit_weights(parent.file(_WEIGHTS), folder / _WEIGHTS, probe)
    np.save(folder / PROBE, np.column_stack([probe.weight, probe.bias]))
    if MEDIANS in parent.manifest.files:
        shutil.copyfile(parent.file(MEDIANS), folder / MEDIANS)
    (folder / "report").mkdir()
    for file in (f"report/{name}" for name in _CARRIED):
        if file in parent.manifest.files:
            shutil.copyfile(parent.file(file), folder / file)


def _check(parent: Release, folder: Path, probe: Probe, images: NDArray[np.uint8]) -> dict[str, Any]:
    """The figures of each format; raises `ParityError` unless its embeddings are the parent's, bit by bit."""
    found: dict[str, Any] = {}
    for form in parent.forms:
        old, new = (
            run_in_passes(open_runtime(home / FORMATS[form], device="cpu"), images) for home in (parent.folder, folder)
        )
        if not np.array_equal(old.embedding, new.embedding):
            raise ParityError(f"{form}: with the new probe an embedding is not the parent's, bit by bit")
        found[form] = measure(Outputs(old.embedding, probe.logits(old.embedding)), new)
        bound = EXACT.largest_difference * (1 + found[form]["logits_largest"])
        if not found[form]["logits_difference"] <= bound:
            raise ParityError(f"{form}: a logit differs by {found[form]['logits_difference']:.2e}, above {bound:.2e}")
    return found


def _without_probe(gates: dict[str, Any]) -> dict[str, Any]:
    """The verdicts on approximate files, without the figures of the old probe: the rest is about the encoder."""

    def less(gate: dict[str, Any]) -> dict[str, Any]:
        figures = gate.get("figures", {})
        return gate | {"figures": {key: value for key, value in figures.items() if not key.startswith("probe_")}}

    return {form: less(gate) if "figures" in gate else gate for form, gate in gates.items()}
