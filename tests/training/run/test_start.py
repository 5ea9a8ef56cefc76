"""A run that goes on from an encoder: the weights it begins with, what is refused, and that it resumes exactly."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.command_line.command import parser_of
from tests.conftest import Chain
from training.data.dataset import Dataset
from training.model.encoder import build_head
from training.recipe.config import PretrainConfig, override
from training.run.checkpoint import CheckpointError, load_encoder
from training.run.command import COMMAND
from training.run.flags import configuration
from training.run.options import RunOptions
from training.run.pretrain import pretrain
from training.run.run import open_run
from training.run.start import start_of

Tiny = Callable[..., PretrainConfig]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def first(coloured: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = {
        "encoder.architecture": "resnet18",
        "encoder.stem": "small_stride2",
        "head.hidden": 32,
        "head.out": 16,
        "optimiser.warmup_epochs": 0.5,
        "batch_size": 16,
        "epochs": 1,
        "precision": "fp32",
    }
    return pretrain(coloured, tmp_path_factory.mktemp("first"), override(PretrainConfig(), changes))


def begun(path: Path, config: PretrainConfig) -> PretrainConfig:
    start = start_of(path)
    return replace(config, start=start.digest, encoder=start.encoder)


def test_a_run_begins_with_the_encoder_and_head_of_a_checkpoint(
    coloured: Dataset, first: Path, tmp_path: Path, tiny: Tiny
) -> None:
    config = begun(first, tiny())
    state = open_run(coloured, tmp_path, config, device=CPU, start_from=first)
    before = load_file(first)
    for name, value in state.encoder.state_dict().items():
        torch.testing.assert_close(value, before[f"encoder.{name}"], rtol=0, atol=0)
    for name, value in state.head.state_dict().items():
        torch.testing.assert_close(value, before[f"head.{name}"], rtol=0, atol=0)
    assert state.normalisation == load_encoder(first)[2:4]


def test_another_head_begins_at_random(coloured: Dataset, first: Path, tmp_path: Path, tiny: Tiny) -> None:
    config = begun(first, tiny(head__out=8))
    state = open_run(coloured, tmp_path, config, device=CPU, start_from=first)
    drawn = build_head(config.head, state.encoder.embedding_dim, seed=config.seed).state_dict()
    for name, value in state.head.state_dict().items():
        torch.testing.assert_close(value, drawn[name], rtol=0, atol=0)


def test_a_run_begins_with_the_encoder_of_a_release(chain: Chain, tmp_path: Path) -> None:
    where = ["--data", str(chain.data.folder), "--out", str(tmp_path), "--start-from", str(chain.release.folder)]
    length = ["--epochs", "1", "--batch-size", "48", "--set", "optimiser.warmup_epochs=0"]
    flags = parser_of(COMMAND).parse_args([*where, *length])
    config = configuration(flags, chain.data)
    assert config.encoder.architecture == "resnet18"
    state = open_run(chain.data, tmp_path, config, device=CPU, start_from=chain.release.folder)
    before = load_encoder(chain.ingredients.checkpoint)
    for name, value in state.encoder.state_dict().items():
        torch.testing.assert_close(value, before.encoder.state_dict()[name], rtol=0, atol=0)
    torch.testing.assert_close(torch.tensor(state.normalisation.mean), torch.tensor(before.mean))


def test_what_it_began_with_is_part_of_the_run(coloured: Dataset, first: Path, tmp_path: Path, tiny: Tiny) -> None:
    config = begun(first, tiny(epochs=2))
    path = pretrain(coloured, tmp_path, config, RunOptions(start_from=first))
    assert load_encoder(path).config.start == start_of(first).digest
    with pytest.raises(ValueError, match="start was"):
        pretrain(coloured, tmp_path, replace(config, start=""))
    with pytest.raises(ValueError, match="both must mean the same file"):
        pretrain(coloured, tmp_path / "other", config)
    assert pretrain(coloured, tmp_path, config, RunOptions(start_from=first)) == path  # finished, and returned at once


def test_a_release_with_altered_weights_is_refused(chain: Chain, tmp_path: Path) -> None:
    folder = tmp_path / "1"
    folder.mkdir()
    for name in ("manifest.json", "weights.safetensors"):
        (folder / name).write_bytes((chain.release.folder / name).read_bytes())
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="was altered"):
        start_of(folder)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no readable checkpoint"):
        start_of(tmp_path / "weights.pt")
