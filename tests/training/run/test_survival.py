"""What a run survives: a full disk, images that can't be read any more, numbers that are not finite, two signals."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from core.machine.interrupts import Interrupts
from tests import disks
from tests.training.processes import ROOT, finish, start, wait_for_steps
from training.data.dataset import Dataset
from training.recipe.config import PretrainConfig
from training.run import checkpoint, run
from training.run.checkpoint import CheckpointError, load_encoder, read_metadata
from training.run.curves import Curves
from training.run.log import read_log
from training.run.monitor import Monitor
from training.run.options import RunOptions
from training.run.pretrain import pretrain

Tiny = Callable[..., PretrainConfig]
MIB = 1 << 20

SAVE_WITHOUT_SPACE = """
import resource, sys, torch
from pathlib import Path
from training.run import checkpoint
from training.run import run
from training.recipe.config import from_dict
from training.data.dataset import Dataset
path = Path(sys.argv[2]) / "checkpoint.safetensors"
config = from_dict(checkpoint.read_metadata(path)["config"])
state = run.open_run(Dataset.load(sys.argv[1]), path.parent, config, device=torch.device("cpu"))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
checkpoint.save(path, state)
"""


def test_a_full_disk_is_an_error_and_the_last_checkpoint_survives(
    coloured: Dataset, tmp_path: Path, tiny: Tiny
) -> None:
    path = pretrain(coloured, tmp_path, tiny(epochs=2))
    before = path.read_bytes()
    command = [sys.executable, "-c", SAVE_WITHOUT_SPACE, str(coloured.folder), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "CheckpointError: can't write the checkpoint" in done.stderr
    assert "the previous checkpoint is untouched" in done.stderr
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*partial"))


def test_weights_that_are_not_finite_are_not_saved_over_good_ones(
    coloured: Dataset, tmp_path: Path, tiny: Tiny
) -> None:
    path = pretrain(coloured, tmp_path, tiny(epochs=2))
    before = path.read_bytes()
    state = run.open_run(coloured, tmp_path, tiny(epochs=2), device=torch.device("cpu"))
    with torch.no_grad():
        state.encoder.layer4[0].conv2.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"encoder.layer4.0.conv2.weight first.*checkpoint is untouched"):
        checkpoint.save(path, state)
    assert path.read_bytes() == before


def test_the_command_reports_a_full_disk(coloured: Dataset, tmp_path: Path) -> None:
    [(code, errors)] = finish([start(coloured.folder, tmp_path, limit=1 << 20)])
    assert code == 1
    assert "error: can't write the checkpoint" in errors.splitlines()[-1]
    assert not (tmp_path / "checkpoint.safetensors").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many bytes."""
    with ExitStack() as mounted:
        yield lambda size: mounted.enter_context(disks.small_disk(tmp_path / "disk", size))


def test_a_disk_with_room_for_one_checkpoint_keeps_it(
    coloured: Dataset, small_disk: Callable[[int], Path], tiny: Tiny
) -> None:
    out = small_disk(150 * MIB)  # a checkpoint has 86 MiB, and is written beside the one before
    with pytest.raises(CheckpointError, match=r"No space left.*the previous checkpoint is untouched"):
        pretrain(coloured, out, tiny(), RunOptions(checkpoint_seconds=0, tensorboard=False, device="cpu"))
    assert read_metadata(out / "checkpoint.safetensors")["step"] == 1
    assert load_encoder(out / "checkpoint.safetensors").encoder.embedding_dim == 512
    assert {path.name for path in out.iterdir()} == {"checkpoint.safetensors", "log.jsonl"}


def test_a_log_that_can_not_be_written_stops_the_run(
    coloured: Dataset, small_disk: Callable[[int], Path], tiny: Tiny
) -> None:
    out = small_disk(MIB)
    fill(out, leave=4096)
    options = RunOptions(log_steps=1, checkpoint_seconds=1e9, tensorboard=False, device="cpu")
    with pytest.raises(OSError, match=r"can't write the log .*log.jsonl: .*No space left"):
        pretrain(coloured, out, tiny(epochs=10), options)
    steps = [entry["step"] for entry in read_log(out / "log.jsonl")]
    assert steps == list(range(1, len(steps) + 1))
    assert 2 < len(steps) < 50


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_curves_that_can_not_be_written_are_an_error(small_disk: Callable[[int], Path]) -> None:
    out = small_disk(MIB)
    curves = Curves(out)
    fill(out, leave=0)
    with pytest.raises(OSError, match="No space left"):
        write_much(curves)


def write_much(curves: Curves) -> None:
    for step in range(2000):
        curves.write({"step": step, "loss": 1.0})
        curves.flush()


def fill(folder: Path, *, leave: int) -> None:
    """Take all room of the disk but `leave` bytes."""
    status = os.statvfs(folder)
    with open(folder / "filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - leave)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_cut_short_while_a_run_reads_them_are_one_line(coloured: Dataset, tmp_path: Path, workers: int) -> None:
    """A memory map would die of SIGBUS."""
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(coloured.folder, data)
    process = start(data, out, "--workers", str(workers))
    wait_for_steps(out, 3, process)
    os.truncate(data / "images.npy", 1000)
    [(code, errors)] = finish([process])
    assert code == 1, errors
    told = errors.splitlines()[-1]
    assert told.startswith("error: can't read image ")
    assert told.endswith(f"of {data / 'images.npy'}: the file ends before it; prepare the data again")
    assert "Traceback" not in errors
    assert 1 <= read_metadata(out / "checkpoint.safetensors")["step"] < 25
    assert load_encoder(out / "checkpoint.safetensors").encoder.embedding_dim == 512


def test_images_cut_short_are_an_error_to_the_monitor_too(coloured: Dataset, tmp_path: Path, tiny: Tiny) -> None:
    """Its images are others than the batch's, so that nobody else need have met the cut."""
    folder = shutil.copytree(coloured.folder, tmp_path / "data")
    data, config = Dataset.load(folder), tiny(epochs=2)
    state = run.open_run(data, tmp_path, config, device=torch.device("cpu"))
    monitor = Monitor(data, state.normalisation, config.views)
    os.truncate(folder / "images.npy", 1000)
    with pytest.raises(OSError, match="can't read image"):
        monitor.measure(state.encoder)


def test_a_second_signal_a_second_later_acts_as_ever_and_an_echo_does_not() -> None:
    """torchrun passes SIGTERM on to processes that a scheduler has told already."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with Interrupts() as interrupts:
            first = time.monotonic()
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupts.received == signal.SIGTERM
            assert seen == [] or time.monotonic() - first > 1
            while time.monotonic() < first + 1.1:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
            assert seen[-1] == signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


INSISTING = """
import os, signal, sys, time
from core.machine.interrupts import Interrupts
with Interrupts() as interrupts:
    print("ready", flush=True)
    while interrupts.received is None:
        time.sleep(0.01)
    print(interrupts.received.name, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_signals_end_a_step_that_never_ends(number: signal.Signals) -> None:
    command = [sys.executable, "-c", INSISTING]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"{number.name}\n"
        time.sleep(1.2)  # what is too soon after the first is an echo of it
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=30) == -number
