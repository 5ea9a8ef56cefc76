"""A recipe scaled to a time: how many steps it becomes, and what stays of it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from training.data.dataset import Dataset
from training.recipe.config import OptimiserConfig, PretrainConfig
from training.run.options import RunOptions
from training.run.pace import scaled, with_steps

Tiny = Callable[..., PretrainConfig]
ROOT = Path(__file__).parents[3]


def test_a_number_of_steps_keeps_the_share_of_warm_up(coloured: Dataset) -> None:
    recipe = PretrainConfig(batch_size=16, epochs=20, optimiser=OptimiserConfig(warmup_epochs=2))
    config = with_steps(recipe, coloured, 8)
    assert config.steps == 8
    assert config.optimiser.warmup_epochs == pytest.approx(0.1 * 8 / 5)
    assert config.epochs == 2


def test_twice_the_time_is_about_twice_the_steps(
    coloured: Dataset, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny(resolutions=[[8, 0.5], [16, 0.5]])
    steps = [scaled(recipe, coloured, seconds, options=RunOptions("cpu")).steps for seconds in (4, 40)]
    assert steps[0] >= 2
    assert 2 < steps[1] / steps[0] < 50  # a machine is not always equally fast
    assert f"timing steps of {recipe.batch_size} images" in capsys.readouterr().err


def test_no_time_is_refused(coloured: Dataset, tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="minutes is 0; it must be above 0"):
        scaled(tiny(), coloured, 0, options=RunOptions("cpu"))


def test_the_command_keeps_the_number_of_steps_when_it_goes_on(coloured: Dataset, tmp_path: Path) -> None:
    small = ("--architecture", "resnet18", "--stem", "small_stride2", "--batch-size", "16", "--set", "head.hidden=32")
    where = ("--data", str(coloured.folder), "--out", str(tmp_path), "--device", "cpu", "--minutes", "0.02")
    command = [sys.executable, "-m", "training.run", *where, *small]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert "steps in 0.0 minutes" in first.stderr
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] >= 2
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "already finished" in again.stderr
    assert f"({log[-1]['step']} steps)" in again.stderr
    longer = subprocess.run([*command, "--minutes", "9"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"has begun as a run of {log[-1]['step']} steps, and stays one; --fresh" in longer.stderr
    both = subprocess.run([*command, "--set", "steps=3"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert both.stderr.startswith("error: steps and minutes (0.02) both give the length")
