"""Workers that could not hand over their images are refused at once, where the run would wait for ever."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
READ = """
import sys
import numpy as np, torch
from training.run.batches import Batches

if __name__ == "__main__":
    images = np.load(sys.argv[1], mmap_mode="r")
    made = Batches(images, np.arange(8), batch_size=4, seed=0, device=torch.device("cpu"))
    try:
        print(sum(1 for _ in made.between(0, 2, workers=1)), "batches")
    except OSError as error:
        print("error:", error)
"""


@pytest.fixture
def reading(tmp_path: Path) -> list[str]:
    import numpy as np

    np.save(tmp_path / "images.npy", np.zeros((8, 256, 256, 3), np.uint8))
    (tmp_path / "read.py").write_text(READ)
    return [sys.executable, str(tmp_path / "read.py"), str(tmp_path / "images.npy")]


def run(command: list[str], **environment: str) -> str:
    import os

    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout or done.stderr


def test_a_small_shared_memory_is_named(reading: list[str]) -> None:
    within = 'mount -t tmpfs -o size=1M tmpfs /dev/shm && exec "$@"'
    said = run(["unshare", "-Urm", "bash", "-c", within, "bash", *reading])
    if "unshare" in said or "mount" in said:
        pytest.skip("a small /dev/shm needs a mount namespace")
    assert said.startswith("error: --workers needs 2,359,296 bytes of shared memory, and /dev/shm has 1,048,576 free")


def test_a_long_tmpdir_is_named_and_one_that_fits_works(reading: list[str], tmp_path: Path) -> None:
    for length, expected in ((75, "2 batches"), (76, "error: TMPDIR is "), (100, "error: TMPDIR is ")):
        folder = Path("/tmp") / (tmp_path.name[:10].ljust(length - 5, "x"))
        folder.mkdir(exist_ok=True)
        assert run(reading, TMPDIR=str(folder)).startswith(expected)
        folder.rmdir()
