"""The arrows of the house: export -> training, serving; training -> core.images.decode; serving -> neither."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("training", "export", "serving")
OF_IMAGES = {
    "core.images.decode",
    "core.files.durable",
    "core.images.folders",
    "core.files.rows_file",
    "core.images.seen",
}
OF_PROCESSES = {"core.machine.held_signals"}
# what a retraining must know of what is served: the pictures it learns from, the release it goes on from, the store
OF_RETRAINING = {
    "serving.collection.catalogue.sqlite.catalogue",
    "serving.collection.errors",
    "serving.collection.pictures.frozen",
    "core.releases.manifest",
    "core.releases.model_store",
    "core.releases.servers",
}
RETRAIN_FILES = {path.name for path in (ROOT / "training" / "retrain").glob("*.py")}


def imports(room: str) -> set[tuple[str, str]]:
    """Every (file, imported module of ours) in a room, also the imports inside functions."""
    found = set()
    for path in sorted((ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            found |= {(path.name, name) for name in names if name.split(".")[0] in (*ROOMS, "scripts", "tests")}
    return found


def test_serving_imports_no_other_room() -> None:
    assert {name.split(".")[0] for _, name in imports("serving")} == {"serving"}


def test_training_imports_nothing_of_serving_but_reading_images_and_holding_signals() -> None:
    others = {name for _, name in imports("training") if not name.startswith("training")}
    assert others <= OF_IMAGES | OF_PROCESSES | OF_RETRAINING


def test_only_retraining_knows_collections_and_releases() -> None:
    knowing = {file for file, name in imports("training") if name in OF_RETRAINING}
    assert knowing <= {"frozen.py", "dataset.py", "start.py"} | RETRAIN_FILES


def test_export_imports_training_and_serving_only() -> None:
    assert {name.split(".")[0] for _, name in imports("export")} == {"export", "serving", "training"}


@pytest.mark.parametrize(
    "module",
    [
        "serving.engine",
        "serving.protocol.wire",
        "serving.torchserve.handler",
        "serving.client.client",
        "serving.jobs.bulk.command",
    ],
)
def test_serving_needs_no_torch(module: str) -> None:
    check = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


def test_nothing_loads_a_pickle() -> None:
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            source = path.read_text()
            assert "import pickle" not in source, path
            assert "torch.load(" not in source, path
            assert "allow_pickle=True" not in source, path
