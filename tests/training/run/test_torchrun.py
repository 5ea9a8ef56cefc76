"""torchrun for real, two processes on the CPU: what they learn, SIGTERM and resuming, a full disk, a lost process."""

import math
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.processes import (
    ARGUMENTS,
    finish,
    rank_environments,
    run_python,
    start,
    wait_for_steps,
)
from training.data.dataset import Dataset
from training.model.encoder import build_encoder
from training.recipe.config import from_dict
from training.run.checkpoint import load_encoder, read_metadata
from training.run.log import read_log

CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"
GENTLE = ("--lr", "0.005", "--no-tensorboard")  # rounding grows with every step, and with its length


@dataclass(frozen=True)
class Runs:
    """Folders of one recipe: by one process; stopped under torchrun; that one resumed by two and by one process."""

    alone: Path
    stopped: Path
    by_two: Path
    by_one: Path
    errors: list[str]


def torchrun(data: Path, out: Path) -> subprocess.Popen[str]:
    launcher = ["-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "training.run", "--data", str(data), "--out", str(out), *ARGUMENTS, *GENTLE]
    return run_python(launcher + command, {})


@pytest.fixture(scope="module")
def runs(coloured: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root = tmp_path_factory.mktemp("torchrun")
    names = ("alone", "stopped", "by_two", "by_one")
    alone, stopped, by_two, by_one = (root / name for name in names)
    first = start(coloured.folder, alone, *GENTLE)
    [(code, error)] = finish([first])
    assert code == 0, error
    first = torchrun(coloured.folder, stopped)
    wait_for_steps(stopped, 4, first)
    first.send_signal(signal.SIGTERM)
    ended = finish([first])
    for copy in (by_two, by_one):
        shutil.copytree(stopped, copy)
    resumed = torchrun(coloured.folder, by_two)
    ended += finish([resumed])
    [(code, error)] = finish([start(coloured.folder, by_one, *GENTLE)])
    assert code == 0, error
    assert ended[0][0] != 0
    assert ended[1][0] == 0, ended[1][1]
    return Runs(alone, stopped, by_two, by_one, [error for _, error in ended])


def test_sigterm_to_torchrun_saves(runs: Runs) -> None:
    metadata = read_metadata(runs.stopped / CHECKPOINT)
    assert 4 <= metadata["step"] < metadata["total_steps"] == 25
    assert read_log(runs.stopped / LOG)[-1]["step"] == metadata["step"]
    assert f"resuming {runs.by_two} at step {metadata['step']} of 25" in runs.errors[1]


def test_two_processes_learn_what_one_does(runs: Runs) -> None:
    """In 25 steps of float32, some of them by two processes, to 1% of the way from the first weights to the last.

    Losses agree to 1e-5 at first; once rounding has turned the sign of some unit before a ReLU, to 1e-3.
    """
    config = from_dict(read_metadata(runs.alone / CHECKPOINT)["config"])
    first = build_encoder(config.encoder, seed=config.seed)
    expected = load_encoder(runs.alone / CHECKPOINT).encoder
    losses = [entry["loss"] for entry in read_log(runs.alone / LOG)]
    for out in (runs.by_two, runs.by_one):
        found = load_encoder(out / CHECKPOINT).encoder
        assert distance(found, expected) < 0.01 * distance(first, expected)
        for name, value in expected.named_buffers():
            torch.testing.assert_close(found.get_buffer(name), value, rtol=1e-2, atol=1e-2)
        log = read_log(out / LOG)
        assert [entry["step"] for entry in log] == list(range(1, 26))
        assert [entry["loss"] for entry in log[:4]] == pytest.approx(losses[:4], abs=1e-5)
        assert [entry["loss"] for entry in log] == pytest.approx(losses, abs=1e-3)


def distance(first: nn.Module, second: nn.Module) -> float:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return math.sqrt(sum(float((one - other).detach().square().sum()) for one, other in pairs))


def test_only_the_first_rank_speaks(runs: Runs) -> None:
    assert runs.errors[1].count("resuming") == 1
    assert runs.errors[1].count("25/25") >= 1


def test_a_full_disk_of_rank_0_stops_all(coloured: Dataset, tmp_path: Path) -> None:
    ranks = [start(coloured.folder, tmp_path, limit=1 << 20, environment=one) for one in rank_environments()]
    (first, second) = finish(ranks)
    assert (first[0], second[0]) == (1, 1)
    assert "error: can't write the checkpoint" in first[1]
    assert second[1].splitlines()[-1] == "error: stopped, because rank 0 failed"
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_lost_process_stops_the_others_in_one_line(coloured: Dataset, tmp_path: Path) -> None:
    first, second = (start(coloured.folder, tmp_path, environment=one) for one in rank_environments())
    wait_for_steps(tmp_path, 2, first)
    second.kill()
    code, errors = finish([first])[0]
    assert code == 1
    assert errors.splitlines()[-1].startswith("error: stopped, because another process is gone: ")
    assert "Traceback" not in errors
    assert read_metadata(tmp_path / CHECKPOINT)["step"] >= 1
