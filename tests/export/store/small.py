"""Releases that are whole in every respect but run nothing: manifest, files and archive of a few kilobytes."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.releases.manifest import FILE_NAME, SCHEMA, InputContract, Manifest, Release, entry_of, to_json
from core.releases.model_store import ModelStore

NAME = "small"


def make_release(store: ModelStore, version: int, **changes: Any) -> Release:
    """Release `version` and its archive; `changes` are fields of its manifest."""
    folder = store.home / str(version)
    (folder / "report").mkdir(parents=True)
    (folder / "encoder.onnx").write_bytes(bytes([version]) * 4096)
    (folder / "report/loss.png").write_bytes(b"picture")
    files = {name: entry_of(folder / name) for name in ("encoder.onnx", "report/loss.png")}
    told = {
        "created": f"2026-01-0{version}T00:00:00+00:00",
        "metrics": {"linear_probe": {"accuracy": 0.5 + version / 100}, "knn": {"k10": 0.4}},
        "lineage": {
            "data": {"counts": {"train": 80, "test": 20}},
            "config": {"epochs": version, "encoder": {"stem": "small"}},
            "libraries": {"numpy": "2.4"},
        },
    }
    manifest = Manifest(
        schema=SCHEMA,
        name=store.name,
        version=version,
        architecture="resnet18",
        embedding_dim=8,
        input=InputContract(size=16),
        classes=("cat", "dog"),
        files=files,
        parity={},
        **told | changes,
    )
    (folder / FILE_NAME).write_bytes(to_json(manifest))
    release = Release(folder)
    make_archive(release, store.archive(version))
    return release


def make_archive(release: Release, path: Path) -> None:
    """The release's archive, as TorchServe's archiver lays it out."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in (FILE_NAME, "encoder.onnx"):
            archive.write(release.folder / name, name)
        archive.writestr("serving/torchserve/handler.py", "handled = True\n")


def approved(champion: Release, *, failed: Sequence[str] = ()) -> dict[str, Any]:
    """The verdict of a comparison with this champion."""
    return {
        "passed": not failed,
        "champion": champion.manifest.title,
        "champion_digest": champion.digest,
        "gates": [{"name": "probe", "value": 0.6, "champion": 0.5, "bound": 0.49, "passed": not failed, "why": ""}],
        "figures": {},
        "failed": list(failed),
    }


def flip(path: Path, at: int) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
