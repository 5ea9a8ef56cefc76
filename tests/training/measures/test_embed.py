"""Embedding: exact on every device; and an image that can't be read is an error, whoever reads it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.backends import cudnn

from training.data.dataset import Dataset
from training.measures.embed import full_precision

ROOT = Path(__file__).parents[3]
READERS = """
import os, sys
import numpy as np, torch
from training.recipe.config import EncoderConfig, ViewsConfig
from training.data.dataset import Dataset
from training.measures.embed import embed_all
from training.model.encoder import build_encoder
from training.evaluation import fine_tune, pages
from training.evaluation.label_splits import LabelSplits
from training.evaluation.representations import raw_pixels
from training.model.pixels import Normalisation
from training.measures.label_free import alignment_by

data = Dataset.load(sys.argv[1])
os.truncate(data.folder / "images.npy", 4096)
by, last = raw_pixels(data).by, np.array([len(data) - 1])
splits = LabelSplits.of(data)
setting = fine_tune.Setting(1, ViewsConfig(), Normalisation((0, 0, 0), (1, 1, 1)), torch.device("cpu"))
network = fine_tune._copied(build_encoder(EncoderConfig("resnet18", image_size=8)), 3, setting.device)
for read in (
    lambda: embed_all(by, data.images, description=None),
    lambda: alignment_by(by, data.images, views=ViewsConfig()),
    lambda: by.function(torch.zeros(1, 3, 8, 8)),
    lambda: fine_tune.right(network, data, splits, last, setting),
    lambda: pages.thumbnail(data, int(last[0])),
):
    try:
        read()
    except OSError as error:
        print(error)
"""


def settings() -> tuple[object, ...]:
    convolutions = cudnn.conv  # type: ignore[attr-defined]
    return convolutions.fp32_precision, cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32


def broken_block(device: torch.device) -> None:
    with full_precision(device):
        raise KeyError


def test_convolutions_are_exact_on_cuda_and_left_alone_on_the_cpu() -> None:
    """Setting a flag of CUDA's needs no such device."""
    before = settings()
    with full_precision(torch.device("cpu")):
        assert settings() == before
    with full_precision(torch.device("cuda")):
        assert cudnn.conv.fp32_precision == "ieee"  # type: ignore[attr-defined]
        assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic) == before[1:4]
    assert settings() == before
    with pytest.raises(KeyError):
        broken_block(torch.device("cuda"))
    assert settings() == before


def test_images_that_are_gone_meanwhile_are_an_error_and_no_signal(coloured: Dataset, tmp_path: Path) -> None:
    shutil.copytree(coloured.folder, tmp_path / "data")
    command = [sys.executable, "-W", "ignore", "-c", READERS, str(tmp_path / "data")]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert all("can't read image" in line and "prepare the data again" in line for line in lines)
