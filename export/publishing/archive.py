"""The model archive (.mar) of a release, for TorchServe: made from the release, and holding its manifest.

The archive carries the serving code and its graphs, so any TorchServe whose Python has
the packages can run it; its handler verifies the digests when it loads. Built with TorchServe's own archiver.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import core
import serving
from core.files.durable import publish_file
from core.files.locks import locked
from core.releases.manifest import FILE_NAME, FORMATS, MEDIANS, PROBE, SEEN, Release
from export.store.locks import ARCHIVING

_CODE = (Path(core.__file__).parent, Path(serving.__file__).parent)


class ArchiveError(RuntimeError):
    """TorchServe's archiver failed."""


def build_archive(release: Release, store: Path, *, torchscript: bool = False) -> Path:
    """Write `store/<name>-<version>.mar` with every ONNX file of the release, or its TorchScript; returns its path.

    Which of the ONNX files runs is chosen where the archive is served (`serving.inference.choice`).
    """
    manifest = release.manifest
    path = store / f"{manifest.name}-{manifest.version}.mar"
    graphs = [release.file(FORMATS[form]) for form in release.forms if (form == "torchscript") == torchscript]

    def write(partial: Path) -> None:
        with tempfile.TemporaryDirectory(dir=store, prefix=".archive-") as folder:
            shutil.move(_archive(release, graphs, Path(folder)), partial)

    with locked(store / ARCHIVING, shared=True):  # for `export.store collect`, which removes what dead builds left
        publish_file(path, write)
    return path


def _archive(release: Release, graphs: list[Path], folder: Path) -> Path:
    content = folder / "content"  # the archiver takes what is in an extra folder, not the folder itself
    for room in _CODE:
        shutil.copytree(room, content / room.name, ignore=shutil.ignore_patterns("__pycache__"))
    more = [release.file(name) for name in (PROBE, SEEN) if name in release.manifest.files]
    for file in (release.folder / FILE_NAME, release.file(MEDIANS), *more, *graphs):
        shutil.copy(file, content)
    command = [
        *(sys.executable, "-m", "model_archiver.model_packaging"),
        *("--model-name", release.manifest.name),
        *("--version", str(release.manifest.version)),
        *("--handler", "content/serving/torchserve/handler.py"),
        *("--extra-files", "content"),  # relative: the archiver splits at commas and expands wildcards
        *("--export-path", "."),
        *("--archive-format", "zip-store"),  # weights do not compress
    ]
    staging = folder / "staging"  # the archiver removes $TMPDIR/<model name>, whatever it may be
    staging.mkdir()
    environment = {**os.environ, "TMPDIR": str(staging.resolve())}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    built = folder / f"{release.manifest.name}.mar"
    if done.returncode != 0 or not built.is_file():
        raise ArchiveError(f"torch-model-archiver failed with code {done.returncode}: {done.stderr[-2000:]}")
    return built
