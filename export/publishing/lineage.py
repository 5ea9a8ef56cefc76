"""Where a release came from: data, configuration, parent, code, machine and times, and the pictures it learnt from."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from core.releases.manifest import SEEN, Release
from training.data.dataset import Dataset

_LIBRARIES = ("torch", "torchvision", "onnx", "onnxruntime-gpu", "numpy", "faiss-cpu", "torchserve")


def now() -> str:
    """The time to the second, as manifests write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def lineage_of(
    data: Dataset, config: Mapping[str, Any] | None, *, parent: Release | None, started: str
) -> dict[str, Any]:
    """The lineage of a release finished now; `config` is its run's, `parent` the release that the run started from."""
    return {
        "data": {"name": data.facts["name"], "sha256": data.digest, "counts": data.facts["counts"]},
        "collection": data.facts.get("collection"),
        "config": config,
        "seed": config.get("seed") if config is not None else None,
        "parent": {"title": parent.manifest.title, "digest": parent.digest} if parent is not None else None,
        "git": git_revision(),
        "libraries": {library: importlib.metadata.version(library) for library in _LIBRARIES},
        "python": platform.python_version(),
        "host": platform.node(),
        "started": started,
        "finished": now(),
    }


def write_seen(folder: Path, data: Dataset) -> None:
    """List the pictures that a release learnt from, which drift is measured by; an older data folder can't tell."""
    contents = data.contents()
    if contents is not None:
        np.save(folder / SEEN, np.unique(contents))


def git_revision() -> dict[str, Any] | None:
    """The revision, and whether the tree was changed; None outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout

    try:
        return {"revision": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
