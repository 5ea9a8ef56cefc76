"""Publish a release: checkpoint and probe in, an immutable folder in the model store out.

Everything is written to a temporary folder, measured there, compared with the champion (`export.comparison`), synced
and renamed: a release exists whole or not at all, and is never changed. One that the gates refuse is published too,
with the verdict. Publishing the same checkpoint and probe again returns the release that exists.
"""

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from core.files.durable import sha256_of
from core.releases.manifest import PROBE, SCHEMA, InputContract, Manifest, Release, check_name, entry_of
from export.formats.graph import ServingGraph
from export.formats.jpeg_margin import measured_margin
from export.formats.parity import eager
from export.formats.real_images import choose_images
from export.formats.write import Int8, write_formats
from export.publishing.lineage import lineage_of, now, write_seen
from export.publishing.verdict import with_verdict
from export.publishing.versions import find, judged_beside, only_one, publish_version
from training.data.dataset import Dataset
from training.measures.probe import load_probe
from training.recipe.config import to_dict
from training.run.checkpoint import load_encoder
from training.run.run import LOG


@dataclass(frozen=True)
class Ingredients:
    """What a release is made of. `evaluation` holds metrics, pictures and, if there are labels, the probe."""

    checkpoint: Path
    evaluation: Path
    data: Path

    @property
    def probe(self) -> Path | None:
        """The probe's file, or None for images without labels."""
        path = self.evaluation / "probe.safetensors"
        return path if path.is_file() else None

    def digests(self) -> dict[str, str | None]:
        """What tells the ingredients of two releases apart; only a probe-only release has an "encoder_of"."""
        return {
            "checkpoint_sha256": sha256_of(self.checkpoint),
            "probe_sha256": sha256_of(self.probe) if self.probe is not None else None,
            "encoder_of": None,
        }


@dataclass(frozen=True)
class _Beside:
    champion: Release | None
    parent: Release | None


def publish(
    ingredients: Ingredients,
    name: str,
    store: Path,
    *,
    int8: Int8 = "plain",
    champion: Release | None = None,
    parent: Release | None = None,
) -> Release:
    """Export, measure, compare and publish; returns the new release, or the one already made of these ingredients.

    `int8` says how much work goes into that file, which takes longest to make and to judge. `champion` is the release
    that the new one is compared with (None: only the gates of a first release), `parent` the one that training started
    from.
    A release that was compared with another champion is made again, to get a verdict beside this one.
    Raises `ParityError` if the answers of an exact format differ from the checkpoint's, ValueError if data, checkpoint
    and evaluation do not go together or the champion can't be compared; nothing is published then.
    """
    home = store / check_name(name)
    with only_one(home):
        existing = find(home, ingredients.digests())
        if existing is not None and _has_int8(existing, int8) and judged_beside(existing, champion):
            return existing
        beside = _Beside(champion, parent)
        return publish_version(home, partial(_fill, ingredients=ingredients, name=name, int8=int8, beside=beside))


def _has_int8(release: Release, effort: Int8) -> bool:
    """Whether as much as this was done for an int8 file: there is one, or the search for it came to its end."""
    gate = release.manifest.gates.get("int8")
    if effort == "none" or gate is None:
        return effort == "none"
    return effort == "plain" or gate["passed"] or bool(gate["costliest_layers"])


def _fill(folder: Path, version: int, *, ingredients: Ingredients, name: str, int8: Int8, beside: _Beside) -> None:
    """Write every file of the release into `folder`, the manifest last."""
    started = now()
    encoder, config, mean, std, _ = load_encoder(ingredients.checkpoint)
    probe = load_probe(ingredients.probe) if ingredients.probe is not None else None
    data = Dataset.load(ingredients.data)
    size = config.encoder.image_size
    if data.image_size != size:
        raise ValueError(f"{ingredients.data} has images of {data.image_size} px, the checkpoint takes {size} px")
    metrics = json.loads((ingredients.evaluation / "metrics.json").read_text())
    if metrics["checkpoint"] != sha256_of(ingredients.checkpoint):
        raise ValueError(f"{ingredients.evaluation} evaluates another checkpoint than {ingredients.checkpoint}")
    graph = ServingGraph(encoder, mean=mean, std=std, probe=probe)
    measured = write_formats(graph, folder, choose_images(data), int8=int8)
    margin = measured_margin(lambda images: eager(graph, images).embedding, data)
    safetensors.torch.save_file(
        {key: value.contiguous() for key, value in graph.state_dict().items()}, folder / "weights.safetensors"
    )
    if probe is not None:
        np.save(folder / PROBE, np.column_stack([probe.weight, probe.bias]))
    write_seen(folder, data)
    _copy_report(ingredients, folder / "report")
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        version=version,
        created=now(),
        architecture=config.encoder.architecture,
        embedding_dim=graph.embedding_dim,
        input=InputContract(size=size),
        classes=tuple(probe.classes) if probe is not None else None,
        files={
            path.relative_to(folder).as_posix(): entry_of(path) for path in sorted(folder.rglob("*")) if path.is_file()
        },
        parity=measured.parity,
        gates=measured.gates,
        metrics=_without_confusion(metrics),
        jpeg_margin=margin,
        lineage=ingredients.digests() | lineage_of(data, to_dict(config), parent=beside.parent, started=started),
    )
    with_verdict(folder, manifest, beside.champion, data)


def _without_confusion(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics without confusion matrices, which have as many numbers as labels squared; the report shows them."""

    def less(figures: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in figures.items() if key != "confusion"}

    return less(metrics) | {"transfer": {name: less(moved) for name, moved in metrics["transfer"].items()}}


def _copy_report(ingredients: Ingredients, folder: Path) -> None:
    """Copy pictures, pages and the log, which show people the run, also beside a later release."""
    folder.mkdir()
    for home in (ingredients.checkpoint.parent, ingredients.evaluation):
        for file in sorted([*home.glob("*.png"), *home.glob("*.html"), *home.glob(LOG)]):
            shutil.copyfile(file, folder / file.name)
