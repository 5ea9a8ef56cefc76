"""The benchmark of views: its command, and what it claims about kornia."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from benchmarks.tools.turns import in_turn, medians
from benchmarks.training.views import KORNIA_DIFFERS, kornia_views, torchvision_view
from tests.benchmarks.conftest import last_line, run


def test_the_command_measures_all_three(archive: Path) -> None:
    few = ("--image-size", "16", "--count", "96", "--batch", "32", "--repeat", "2")
    done = run("benchmarks.training.views", "--images", str(archive), *few)
    rates = last_line(done)["views_per_s"]
    assert set(rates) == {"ours", "torchvision", "kornia"}
    assert all(rate > 0 for rate in rates.values())
    assert all(note in done.stdout for note in KORNIA_DIFFERS)
    assert "torchvision (tensor)" in done.stdout


def test_views_of_another_size_in_processes(archive: Path) -> None:
    few = ("--image-size", "16", "--size", "8", "--count", "64", "--batch", "32", "--repeat", "1", "--threads", "2")
    assert last_line(run("benchmarks.training.views", "--images", str(archive), *few))["views_per_s"]["torchvision"] > 0


def test_kornia_draws_one_order_a_batch() -> None:
    torch.manual_seed(0)
    views = kornia_views(8)
    views(torch.rand(16, 3, 8, 8))
    jitter: Any = list(views.children())[2]
    assert jitter._params["brightness_factor"].shape == (16,)
    assert jitter._params["order"].shape == (4,)


def test_kornia_does_not_antialias() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 32, 32)
    crop: Any = next(iter(kornia_views(8).children()))
    made = crop(images)
    for image, view, corners in zip(images, made, crop._params["src"], strict=True):
        left, top = corners[0].int().tolist()
        right, bottom = (corners[2] + 1).int().tolist()
        part = image[:, top:bottom, left:right]
        assert torch.allclose(view, reference.resize(part, [8, 8], antialias=False), atol=1e-5)
        assert not torch.allclose(view, reference.resize(part, [8, 8], antialias=True), atol=0.05)


def test_a_torchvision_view_is_float_of_the_size() -> None:
    view = torchvision_view(8)(torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8))
    assert view.shape == (3, 8, 8)
    assert view.dtype == torch.float32
    assert view.max() <= 1


def test_measures_take_turns() -> None:
    called: list[str] = []

    def measure(name: str) -> float:
        called.append(name)
        return float(len(called))

    figures = in_turn({"a": lambda: measure("a"), "b": lambda: measure("b")}, 3)
    assert called == ["a", "b"] * 3
    assert medians(figures) == {"a": 3.0, "b": 4.0}
    with pytest.raises(ValueError, match="repeats is 0"):
        in_turn({}, 0)


def test_errors_are_one_line(tmp_path: Path) -> None:
    done = run("benchmarks.training.views", "--images", str(tmp_path / "absent"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
