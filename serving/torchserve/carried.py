"""The code that an archive carries: ours is served in its place where its own speaks another protocol.

Gateway and workers exchange frames of one version. An archive that was built by another has graphs and a manifest that
are as good as ever, so they are served with the code of this one.
"""

import json
import logging
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import core

_HANDLER = "serving/torchserve/handler.py"
_ROOMS = ("core", "serving")
# what the form of a frame depends on
_PROTOCOL = tuple(f"serving/protocol/{name}.py" for name in ("frames", "operations", "agreed", "encodings", "messages"))
_HOUSE = Path(core.__file__).parents[1]
_LOG = logging.getLogger(__name__)


def placed(archive: Path, models: Path) -> Path:
    """The archive in a model folder of its own, so that TorchServe can load no other; returns its place there."""
    models.mkdir()
    with zipfile.ZipFile(archive) as opened:
        if _speaks_ours(opened.read):
            link = models / archive.name
            link.symlink_to(archive.resolve())
            return link
        folder = models / archive.stem
        opened.extractall(folder)
    renew(folder)
    return folder


def renew(folder: Path) -> None:
    """Give an unpacked archive our code, unless its own speaks the same protocol."""
    if _speaks_ours(lambda name: (folder / name).read_bytes()):
        return
    _LOG.warning("%s was built by another version: its graphs are served with the code of this one", folder.name)
    for room in _ROOMS:
        shutil.rmtree(folder / room, ignore_errors=True)
        shutil.copytree(_HOUSE / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    said = json.loads((folder / "MAR-INF/MANIFEST.json").read_text())
    shutil.copy(_HOUSE / _HANDLER, folder / said["model"]["handler"])


def _speaks_ours(read: Callable[[str], bytes]) -> bool:
    """Whether an archive has the same files as we for what frames are made of."""
    try:
        return all(read(name) == (_HOUSE / name).read_bytes() for name in _PROTOCOL)
    except (KeyError, FileNotFoundError):
        return False
