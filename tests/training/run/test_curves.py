"""TensorBoard's curves are the numbers of log.jsonl, each step once, also after a part of a run was lost."""

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from training.run.curves import FOLDER, Curves
from training.run.log import Log, read_log


def curves(out: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows of a run: by curve, step to value; no step twice."""
    accumulator = EventAccumulator(str(out / FOLDER), size_guidance={"scalars": 0})
    accumulator.Reload()
    found = {}
    for tag in accumulator.Tags()["scalars"]:
        points = [(point.step, point.value) for point in accumulator.Scalars(tag)]
        found[tag] = dict(points)
        assert len(found[tag]) == len(points), f"{tag} has a step twice"
    return found


def entry(step: int, **more: float) -> dict[str, Any]:
    return {"step": step, "loss": 5 / step, "lr": 0.1 * step, "seconds": 2.0 * step} | more


def test_every_number_of_the_log_is_on_a_curve(tmp_path: Path) -> None:
    entries = [entry(1), entry(2, rankme=3.5), entry(5)]
    with Log(tmp_path / "log.jsonl") as log:
        shown = Curves(tmp_path)
        for one in entries:
            log.write(one)
            shown.write(one)
        shown.close()
    found = curves(tmp_path)
    assert set(found) == {"training/loss", "training/lr", "speed/seconds", "signals/rankme"}
    for one in read_log(tmp_path / "log.jsonl"):
        for name, value in one.items():
            if name != "step":
                [curve] = [points for tag, points in found.items() if tag.endswith(f"/{name}")]
                assert curve[one["step"]] == pytest.approx(value, rel=1e-6)
    assert list(found["signals/rankme"]) == [2]


def test_steps_that_the_checkpoint_does_not_know_are_purged(tmp_path: Path) -> None:
    first = Curves(tmp_path)
    for step in (1, 2, 3, 4):
        first.write(entry(step))
    first.flush()  # and then killed
    resumed = Curves(tmp_path, done=2)
    resumed.write(entry(3, loss=9.0))
    resumed.close()
    assert curves(tmp_path)["training/loss"] == pytest.approx({1: 5.0, 2: 2.5, 3: 9.0})


def test_a_fresh_start_purges_everything(tmp_path: Path) -> None:
    first = Curves(tmp_path)
    first.write(entry(7))
    first.close()
    fresh = Curves(tmp_path)
    fresh.write(entry(1))
    fresh.close()
    assert list(curves(tmp_path)["training/loss"]) == [1]


def test_what_was_flushed_is_in_the_file(tmp_path: Path) -> None:
    shown = Curves(tmp_path)
    for step in range(1, 30):
        shown.write(entry(step))
    shown.flush()
    assert list(curves(tmp_path)["training/loss"]) == list(range(1, 30))
    shown.close()
