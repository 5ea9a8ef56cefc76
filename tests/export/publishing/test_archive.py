"""The archive carries the release's files and the code of a worker: nothing is missing, and nothing is too much."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from core.releases.manifest import FORMATS
from export.publishing.archive import carried_code
from tests.conftest import Chain
from tests.house import ROOT, imports, modules, named

# what TorchServe runs in a worker, and what a worker starts by `python -m`
ENTRIES = (
    "serving.torchserve.handler",
    "serving.collection.commands.compact",
    "serving.collection.commands.snapshot",
)
IMPORT_ALL = """
import sys
from importlib import import_module
from pathlib import Path
unpacked = sys.argv[1]
sys.path[:] = [unpacked, *(path for path in sys.path if "lib/python" in path), sys.argv[2]]
for module in sys.argv[3:]:
    import_module(module)
ours = {name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in ("core", "serving")}
assert len(ours) > 50, ours
assert all(file is None or Path(file).is_relative_to(unpacked) for file in ours.values()), ours
"""


def needed() -> set[str]:
    """Every module of ours that the entries import, also inside functions, or name in a string to start it."""
    found, waiting = set(ENTRIES), [*ENTRIES]
    while waiting:
        module = waiting.pop()
        package = module.rpartition(".")[0]
        new = ((imports(module) | named(module) | {package}) & modules().keys()) - found
        found |= new
        waiting += new
    return found


def test_the_code_is_what_a_worker_imports() -> None:
    carried = {file.as_posix() for file in carried_code()}
    wanted = {modules()[module].relative_to(ROOT).as_posix() for module in needed()}
    assert sorted(wanted - carried) == [], "a worker needs them: add them to what export.publishing.archive carries"
    assert sorted(carried - wanted) == [], "no worker needs them: leave them out in export.publishing.archive"


def test_a_worker_starts_from_the_archive_alone(chain: Chain, tmp_path: Path) -> None:
    with zipfile.ZipFile(chain.archive) as archive:
        archive.extractall(tmp_path)
    every = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in carried_code()]
    command = [sys.executable, "-I", "-S", "-c", IMPORT_ALL, str(tmp_path), sysconfig.get_path("purelib")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*command, "handler", *every], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_it_carries_manifest_graphs_and_nothing_else(chain: Chain) -> None:
    with zipfile.ZipFile(chain.archive) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        assert archive.read("manifest.json") == (chain.release.folder / "manifest.json").read_bytes()
    graphs = {FORMATS[form] for form in chain.release.forms if form != "torchscript"}
    about = {"manifest.json", "medians.npy", "probe.npy", "seen.npy", "handler.py", "MAR-INF/MANIFEST.json"}
    assert names == graphs | about | {file.as_posix() for file in carried_code()}
