"""A data folder of few real images, and the real commands on it."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import cifar10_files

ROOT = Path(__file__).parents[2]
TINY = (
    *("--preset", "quickstart", "--set", "encoder.architecture=resnet18", "--set", "batch_size=32"),
    *("--set", "optimiser.warmup_epochs=1", "--set", "epochs=10"),
    *("--peer-batch", "32", "--workers", "1", "--device", "cpu"),
)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of 160 training and 40 test images of CIFAR-10, of ten labels."""
    path = tmp_path_factory.mktemp("cifar10") / "few.zip"
    with zipfile.ZipFile(path, "w") as target:
        for name, data in cifar10_files(per_label={"train": 16, "test": 4}).items():
            target.writestr(f"cifar10/{name}", data)
    return path


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m module` as a user runs it."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def last_line(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The figures of a benchmark that succeeded."""
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures
