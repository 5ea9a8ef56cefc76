"""Publish a release: checkpoint and probe in, an immutable folder under the model store and its .mar out.

`python -m export.release --name digits --checkpoint runs/digits/pretrain/checkpoint.safetensors \
    --evaluation runs/digits/evaluation --data runs/digits/data`

Everything is written to a temporary folder, measured there, synced and renamed: a release exists whole or not
at all, and is never changed. Publishing the same checkpoint and probe again returns the release there is.
Left out: which release serves (promotion), and the formats themselves (`export.formats`).
"""

import argparse
import fcntl
import importlib.metadata
import json
import logging
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from export.archive import ArchiveError, build_archive
from export.formats import write_formats
from export.graph import ServingGraph
from export.parity import ParityError
from export.real_images import choose_images
from export.store.history import deleted
from serving.durable import publish_folder, sha256_of
from serving.manifest import (
    FILE_NAME,
    PROBE,
    SCHEMA,
    InputContract,
    Manifest,
    ManifestError,
    Release,
    check_name,
    entry_of,
    to_json,
)
from training.checkpoint import CheckpointError, load_encoder
from training.config import to_dict
from training.dataset import Dataset
from training.probe import load_probe

_LIBRARIES = ("torch", "torchvision", "onnx", "onnxruntime-gpu", "numpy", "faiss-cpu", "torchserve")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ingredients:
    """What a release is made of. `evaluation` holds metrics, pictures and, where there are labels, the probe."""

    checkpoint: Path
    evaluation: Path
    data: Path

    @property
    def probe(self) -> Path | None:
        """The probe's file, or None for images without labels."""
        path = self.evaluation / "probe.safetensors"
        return path if path.is_file() else None

    def digests(self) -> dict[str, str | None]:
        """What tells one release's ingredients from another's."""
        return {
            "checkpoint_sha256": sha256_of(self.checkpoint),
            "probe_sha256": sha256_of(self.probe) if self.probe is not None else None,
        }


def publish(ingredients: Ingredients, name: str, store: Path, *, int8: bool = True) -> Release:
    """Export, measure and publish; returns the new release, or the one already made of these ingredients.

    `int8` false leaves that format out, which takes longest to make and to judge.
    Raises `ParityError` if an exact format answers otherwise than the checkpoint; nothing is published then.
    """
    check_name(name)
    home = store / name
    home.mkdir(parents=True, exist_ok=True)
    with _only_one(home):
        digests = ingredients.digests()
        existing = find(home, digests)
        if existing is not None and (not int8 or "int8" in existing.manifest.gates):
            return existing
        version = 1 + max({*versions(home), *deleted(home)}, default=0)
        partial = home / f".partial-{version}"
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir()
        try:
            _fill(partial, ingredients, name, version, int8=int8)
            publish_folder(partial, home / str(version))
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return Release(home / str(version))


def versions(home: Path) -> list[int]:
    """The published versions under `model_store/<name>`, oldest first."""
    return sorted(int(folder.name) for folder in home.iterdir() if folder.is_dir() and folder.name.isdigit())


def find(home: Path, digests: dict[str, str | None]) -> Release | None:
    """The newest release made of ingredients with these digests, if it verifies."""
    for version in reversed(versions(home)):
        try:
            release = Release(home / str(version))
            if all(release.manifest.lineage.get(key) == value for key, value in digests.items()):
                release.verify()
                return release
        except ManifestError as error:
            _LOG.warning("%s", error)
    return None


def _fill(folder: Path, ingredients: Ingredients, name: str, version: int, *, int8: bool) -> None:
    """Write every file of the release into `folder`, the manifest last."""
    encoder, config, mean, std, _ = load_encoder(ingredients.checkpoint)
    probe = load_probe(ingredients.probe) if ingredients.probe is not None else None
    data = Dataset.load(ingredients.data)
    size = config.encoder.image_size
    if data.image_size != size:
        raise ValueError(f"{ingredients.data} has images of {data.image_size} px, the checkpoint learnt at {size} px")
    metrics = json.loads((ingredients.evaluation / "metrics.json").read_text())
    if metrics["checkpoint"] != sha256_of(ingredients.checkpoint):
        raise ValueError(f"{ingredients.evaluation} evaluates another checkpoint than {ingredients.checkpoint}")
    graph = ServingGraph(encoder, mean=mean, std=std, probe=probe)
    measured = write_formats(graph, folder, choose_images(data), int8=int8)
    safetensors.torch.save_file(
        {key: value.contiguous() for key, value in graph.state_dict().items()}, folder / "weights.safetensors"
    )
    if probe is not None:
        np.save(folder / PROBE, np.column_stack([probe.weight, probe.bias]))
    _copy_report(ingredients, folder / "report")
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
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
        lineage=_lineage(ingredients, data, to_dict(config)),
    )
    (folder / FILE_NAME).write_bytes(to_json(manifest))


def _without_confusion(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics without confusion matrices, which have as many numbers as labels squared; the report shows them."""

    def less(figures: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in figures.items() if key != "confusion"}

    return less(metrics) | {"transfer": {name: less(moved) for name, moved in metrics["transfer"].items()}}


def _copy_report(ingredients: Ingredients, folder: Path) -> None:
    folder.mkdir()
    for home in (ingredients.checkpoint.parent, ingredients.evaluation):
        for file in sorted([*home.glob("*.png"), *home.glob("*.html")]):
            shutil.copyfile(file, folder / file.name)


def _lineage(ingredients: Ingredients, data: Dataset, config: dict[str, Any]) -> dict[str, Any]:
    return {
        **ingredients.digests(),
        "data": {"name": data.facts["name"], "sha256": data.digest, "counts": data.facts["counts"]},
        "config": config,
        "parent": None,
        "git": _git_revision(),
        "libraries": {library: importlib.metadata.version(library) for library in _LIBRARIES},
        "python": platform.python_version(),
    }


def _git_revision() -> dict[str, Any] | None:
    """Revision and whether the tree was changed; None outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout

    try:
        return {"revision": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """One publication at a time per name; the lock goes with the process that holds it."""
    with (home / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m export.release",
        description="Export a checkpoint and publish it as a release with its .mar.",
    )
    parser.add_argument("--name", required=True, help="the release's name: model_store/<name>/<version>/")
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint.safetensors of training.pretrain")
    parser.add_argument("--evaluation", type=Path, required=True, help="folder that training.evaluate wrote")
    parser.add_argument("--data", type=Path, required=True, help="data folder, for the parity check's real images")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="default: %(default)s")
    parser.add_argument("--summary", type=Path, help="file for a JSON with the paths of release and archive")
    parser.add_argument("--no-int8", action="store_true", help="leave out int8, which takes longest")
    parser.add_argument(
        "--torchscript", action="store_true", help="a .mar that runs TorchScript; without it, ONNX as fits the machine"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    given = _arguments(arguments)
    try:
        release = publish(
            Ingredients(given.checkpoint, given.evaluation, given.data), given.name, given.store, int8=not given.no_int8
        )
    except (ParityError, CheckpointError, ManifestError, ValueError, OSError) as error:
        print(f"error: nothing was published: {error}", file=sys.stderr)
        return 1
    try:
        archive = build_archive(release, given.store, torchscript=given.torchscript)
    except (ArchiveError, ManifestError, OSError) as error:
        print(f"error: release {release.folder} has no archive: {error}", file=sys.stderr)
        return 1
    if given.summary is not None:
        given.summary.write_text(json.dumps({"release": str(release.folder), "archive": str(archive)}) + "\n")
    for form, figures in release.manifest.parity.items():
        print(
            f"{form}: least cosine {figures['cosine_least']:.7f}, largest difference "
            f"{figures['embedding_difference']:.1e} against the eager graph on {figures['images']} images"
        )
    for form, gate in release.manifest.gates.items():
        print(f"{form}: {_in_words(gate)}")
    print(f"release {release.manifest.title}, digest {release.digest[:16]}: {release.folder}")
    print(f"archive for TorchServe: {archive}")
    return 0


def _in_words(gate: Mapping[str, Any]) -> str:
    """One line on an approximate format: what it reached, or why it was left out."""
    if not gate["passed"]:
        return f"left out: {'; '.join(gate['failed'])}"
    figures = gate["figures"]
    parts = [f"mean cosine {figures['cosine_mean']:.5f}", f"least {figures['cosine_least']:.5f}"]
    if "neighbours_same" in figures:
        parts.append(f"{figures['neighbours_same']:.1%} of the ten nearest the same")
    parts += [
        f"{name} {100 * figures[f'{name}_before']:.1f}% before, {100 * figures[f'{name}_after']:.1f}% after"
        for name in ("knn", "probe")
        if f"{name}_after" in figures
    ]
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
