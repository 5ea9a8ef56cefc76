"""The model archive (.mar) of a release, for TorchServe: made from the release, and holding its manifest.

The archive carries the serving code and the files that one format needs, so any TorchServe whose Python has
the packages can run it; its handler verifies the digests when it loads. Built with TorchServe's own archiver.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import serving
from serving.durable import publish_file
from serving.manifest import FILE_NAME, FORMATS, Release

_CODE = Path(serving.__file__).parent


def build_archive(release: Release, store: Path, *, form: str = "onnx") -> Path:
    """Write `store/<name>-<version>.mar` with the release's graph in `form`; returns its path."""
    manifest = release.manifest
    path = store / f"{manifest.name}-{manifest.version}.mar"
    graph = release.file(FORMATS[form])

    def write(partial: Path) -> None:
        with tempfile.TemporaryDirectory(dir=store) as folder:
            built = _archive(release, graph, Path(folder))
            shutil.move(built, partial)

    publish_file(path, write)
    return path


def _archive(release: Release, graph: Path, folder: Path) -> Path:
    code = folder / "code"  # the archiver takes what is in an extra folder, not the folder itself
    shutil.copytree(_CODE, code / _CODE.name, ignore=shutil.ignore_patterns("__pycache__"))
    extra = [release.folder / FILE_NAME, graph, code]
    command = [
        *(sys.executable, "-m", "model_archiver.model_packaging"),
        *("--model-name", release.manifest.name),
        *("--version", str(release.manifest.version)),
        *("--handler", str(_CODE / "handler.py")),
        *("--extra-files", ",".join(map(str, extra))),
        *("--export-path", str(folder)),
        *("--archive-format", "zip-store"),  # weights do not compress
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    built = folder / f"{release.manifest.name}.mar"
    if done.returncode != 0 or not built.is_file():
        raise RuntimeError(f"torch-model-archiver failed with code {done.returncode}: {done.stderr[-2000:]}")
    return built
