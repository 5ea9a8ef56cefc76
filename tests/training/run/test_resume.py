"""Resuming is exact to the bit on a CPU: after signals, kill -9, at any step, by every kind of run."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from core.machine.interrupts import Interrupted
from tests.training.processes import finish, learnt, start, wait_for_steps
from tests.training.run.test_curves import curves
from training.data.dataset import Dataset
from training.recipe.config import PretrainConfig
from training.run.checkpoint import read_metadata
from training.run.log import read_log
from training.run.options import RunOptions
from training.run.pretrain import pretrain

Tiny = Callable[..., PretrainConfig]
CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"
CLOCK = {"images_per_s", "seconds", "eta_seconds"}


@pytest.fixture(scope="module")
def whole(coloured: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped, in a process of its own: 3 views, DCL, two resolutions."""
    out = tmp_path_factory.mktemp("whole")
    [(code, errors)] = finish([start(coloured.folder, out)])
    assert code == 0, errors
    return out


def assert_the_same_run(out: Path, whole: Path) -> None:
    """Weights, statistics and optimiser to the bit, and every number logged that is not the clock's."""
    assert learnt(out) == learnt(whole)
    logs = [[without_clock(entry) for entry in read_log(folder / LOG)] for folder in (out, whole)]
    assert logs[0] == logs[1]
    assert [entry["step"] for entry in logs[0]] == list(range(1, len(logs[0]) + 1))


def without_clock(entry: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in entry.items() if name not in CLOCK}


def test_sigterm_saves_and_the_resumed_run_is_the_same(coloured: Dataset, tmp_path: Path, whole: Path) -> None:
    process = start(coloured.folder, tmp_path)
    wait_for_steps(tmp_path, 7, process)
    process.send_signal(signal.SIGTERM)
    [(code, errors)] = finish([process])
    assert code == 143, errors
    stopped = read_metadata(tmp_path / CHECKPOINT)["step"]
    assert 7 <= stopped < 25
    assert stopped == read_log(tmp_path / LOG)[-1]["step"]
    [(code, errors)] = finish([start(coloured.folder, tmp_path)])
    assert code == 0, errors
    assert f"resuming {tmp_path} at step {stopped}" in errors
    assert_the_same_run(tmp_path, whole)


def test_kill_9_loses_nothing_but_time(coloured: Dataset, tmp_path: Path, whole: Path) -> None:
    process = start(coloured.folder, tmp_path)
    wait_for_steps(tmp_path, 8, process)
    process.kill()
    [(code, _)] = finish([process])
    assert code == -signal.SIGKILL
    saved = read_metadata(tmp_path / CHECKPOINT)["step"]
    assert set(range(1, saved + 1)) <= set(curves(tmp_path)["training/loss"]), "a saved step has no point on the curve"
    [(code, errors)] = finish([start(coloured.folder, tmp_path)])
    assert code == 0, errors
    assert_the_same_run(tmp_path, whole)
    assert curves(tmp_path)["training/loss"] == curves(whole)["training/loss"]


def test_ctrl_c_in_the_first_step_while_workers_start_up_saves_it(
    coloured: Dataset, tmp_path: Path, whole: Path
) -> None:
    """The terminal sends SIGINT to every process of its group, torch or none imported yet."""
    process = start(coloured.folder, tmp_path, "--workers", "1", group=True)
    deadline = time.monotonic() + 120
    while not (starting := workers_of(process.pid)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no worker started"
        time.sleep(0.005)
    held = 1 << (signal.SIGINT - 1)
    for worker in starting:
        assert blocked_signals(worker) & held, "a worker that starts up would die of Ctrl-C"
    os.killpg(process.pid, signal.SIGINT)
    [(code, errors)] = finish([process])
    assert code == 130, errors
    assert "stopped by SIGINT: the same command resumes from the last checkpoint" in errors
    assert "Traceback" not in errors
    assert read_metadata(tmp_path / CHECKPOINT)["step"] == 1
    [(code, errors)] = finish([start(coloured.folder, tmp_path, "--workers", "1")])
    assert code == 0, errors
    assert_the_same_run(tmp_path, whole)


def test_sigterm_is_heeded_while_a_worker_hangs(coloured: Dataset, tmp_path: Path) -> None:
    """As on a network disk that no longer answers: the step that was taken is saved, and no second signal is needed."""
    process = start(coloured.folder, tmp_path, "--workers", "1")
    try:
        deadline = time.monotonic() + 120
        while not read_log(tmp_path / LOG):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "no step was logged"
            time.sleep(0.002)
        for worker in workers_of(process.pid):
            worker.suspend()
        wait_until_no_step_is_taken(tmp_path)
        process.terminate()
        [(code, errors)] = finish([process])
        assert code == 143, errors
        assert "stopped by SIGTERM: the same command resumes" in errors
        assert "Traceback" not in errors
        assert read_metadata(tmp_path / CHECKPOINT)["step"] >= 1
    finally:
        process.kill()


def wait_until_no_step_is_taken(out: Path, seconds: float = 2.0) -> None:
    """Until what was read ahead is used up: no step was logged for so long."""
    steps, since = len(read_log(out / LOG)), time.monotonic()
    while time.monotonic() - since < seconds:
        if (now := len(read_log(out / LOG))) != steps:
            steps, since = now, time.monotonic()
        time.sleep(0.05)


def workers_of(pid: int) -> list[psutil.Process]:
    """The processes that a run has started to read images, from the moment that they are Python's."""
    with suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())]
    return []


def blocked_signals(process: psutil.Process) -> int:
    """The mask of the signals that only wait; bit n - 1 is signal n."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk:"))


@contextmanager
def sigterm_after(steps: int, out: Path) -> Iterator[None]:
    """Send this process SIGTERM once so many steps are logged; should the run be over by then, it does nothing."""
    ended = threading.Event()

    def send() -> None:
        while len(read_log(out / LOG)) < steps and not ended.wait(0.002):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        ended.set()
        sender.join()
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser__name": "lars", "optimiser__lr": 1.0, "optimiser__weight_decay": 1e-4},
        {"chunk_size": 5, "resolutions": [[5, 0.3], [8, 0.7]]},
        {"head__kind": "none", "loss": "dcl", "views__count": 3, "steps": 17},
    ],
    ids=["lars", "chunks", "steps"],
)
def test_every_kind_of_run_resumes_to_the_bit(
    coloured: Dataset, tmp_path: Path, tiny: Tiny, changes: dict[str, object]
) -> None:
    config, options = tiny(**changes), RunOptions(log_steps=1, monitor_steps=4, tensorboard=False, device="cpu")
    pretrain(coloured, tmp_path / "whole", config, options)
    with sigterm_after(6, tmp_path / "parts"), pytest.raises(Interrupted, match="SIGTERM") as stop:
        pretrain(coloured, tmp_path / "parts", config, options)
    assert stop.value.exit_code == 143
    metadata = read_metadata(tmp_path / "parts" / CHECKPOINT)
    assert 6 <= metadata["step"] < metadata["total_steps"]
    pretrain(coloured, tmp_path / "parts", config, options)
    assert_the_same_run(tmp_path / "parts", tmp_path / "whole")
