"""One worker at a time may use every core: the lock itself, and what a runtime does with it."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.releases.manifest import FORMATS
from serving.inference.backends import CoresLock
from serving.inference.runtime import open_runtime
from tests.conftest import Chain

HOLD = "import sys; from pathlib import Path; from serving.inference.backends import CoresLock\n"
HOLD += "with CoresLock(Path(sys.argv[1])).held() as alone: print(alone, flush=True); sys.stdin.read()"


def test_only_one_holds_it(tmp_path: Path) -> None:
    one, two = CoresLock(tmp_path / "lock"), CoresLock(tmp_path / "lock")
    with one.held() as first, two.held() as second:
        assert (first, second) == (True, False)
    with two.held() as alone:
        assert alone


def test_an_error_gives_it_back(tmp_path: Path) -> None:
    one, two = CoresLock(tmp_path / "lock"), CoresLock(tmp_path / "lock")
    with pytest.raises(RuntimeError), one.held():
        raise RuntimeError
    with two.held() as alone:
        assert alone


def test_a_killed_process_gives_it_back(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        lock = CoresLock(tmp_path / "lock")
        with lock.held() as alone:
            assert not alone
        process.send_signal(signal.SIGKILL)
        process.wait()
    with lock.held() as alone:
        assert alone


def test_an_image_has_the_same_embedding_on_one_core_and_on_all(chain: Chain, tmp_path: Path) -> None:
    size = chain.release.manifest.input.size
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    runtime = open_runtime(chain.release.file(FORMATS["onnx"]), device="cpu", threads=1, lock=tmp_path / "lock")
    wide = runtime(image).embedding
    with CoresLock(tmp_path / "lock").held() as alone:
        narrow = runtime(image).embedding
    assert alone
    np.testing.assert_allclose(wide, narrow, atol=1e-6)
