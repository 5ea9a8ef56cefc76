"""The model archive (.mar) of a release, for TorchServe: its graphs and manifest, and the code that runs them.

Any TorchServe whose Python has the packages can run it; its handler verifies the digests when it loads. It is built
with TorchServe's own archiver.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import core
from core.files.durable import publish_file, sha256_of
from core.files.locks import locked
from core.releases.archive_digest import record
from core.releases.manifest import FILE_NAME, FORMATS, MEDIANS, PROBE, SEEN, Release
from export.store.locks import ARCHIVING

# A worker needs these and, of them, all but what follows. tests/export/publishing/test_archive.py compares both with
# what the handler, and the commands that workers start, import.
_CARRIED = (
    "core",
    "serving/engine.py",
    "serving/protocol",
    "serving/operations",
    "serving/inference",
    "serving/collection",
    "serving/torchserve/handler.py",
    "serving/torchserve/busy.py",
    "serving/torchserve/calls.py",
    "serving/torchserve/parameters.py",
)
_LEFT_OUT = (
    "core/command_line/values.py",
    "core/files/rows_file.py",
    "core/machine/held_signals.py",
    "core/machine/parent.py",
    "core/machine/ports.py",
    "core/releases/archive_digest.py",
    "core/releases/model_store.py",
    "core/releases/servers.py",
    "serving/collection/commands/spaces.py",
    "serving/collection/drift/command.py",
    "serving/protocol/labels.py",
)
_HOUSE = Path(core.__file__).parents[1]


class ArchiveError(RuntimeError):
    """TorchServe's archiver failed."""


def carried_code() -> list[Path]:
    """The Python files that every archive carries, relative to the folder that holds `core` and `serving`."""
    files = {path for part in _CARRIED for path in [_HOUSE / part, *(_HOUSE / part).rglob("*.py")] if path.is_file()}
    packages = {folder / "__init__.py" for path in files for folder in path.parents if _HOUSE in folder.parents}
    found = {path.relative_to(_HOUSE) for path in files | packages}
    return sorted(found - {Path(path) for path in _LEFT_OUT})


def build_archive(release: Release, store: Path, *, torchscript: bool = False) -> Path:
    """Write `store/<name>-<version>.mar` with every ONNX file of the release, or its TorchScript; returns its path.

    Its digest is recorded beside it, before it takes its place: one that is cut off in between is refused.
    Which of the ONNX files runs is chosen where the archive is served (`serving.inference.choice`).
    """
    manifest = release.manifest
    path = store / f"{manifest.name}-{manifest.version}.mar"
    graphs = [release.file(FORMATS[form]) for form in release.forms if (form == "torchscript") == torchscript]

    def write(partial: Path) -> None:
        with tempfile.TemporaryDirectory(dir=store, prefix=".archive-") as folder:
            shutil.move(_archive(release, graphs, Path(folder)), partial)
        record(path, sha256_of(partial))

    with locked(store / ARCHIVING, shared=True):  # so that `simclr releases collect` removes only what dead builds left
        publish_file(path, write)
    return path


def _archive(release: Release, graphs: list[Path], folder: Path) -> Path:
    content = folder / "content"  # the archiver takes what is in an extra folder, not the folder itself
    for file in carried_code():
        (content / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_HOUSE / file, content / file)
    more = [release.file(name) for name in (PROBE, SEEN) if name in release.manifest.files]
    for path in (release.folder / FILE_NAME, release.file(MEDIANS), *more, *graphs):
        shutil.copy(path, content)
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
