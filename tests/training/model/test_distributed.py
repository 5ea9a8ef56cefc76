"""Two real gloo ranks against one process on the whole batch: loss, gradients, BatchNorm statistics, collectives."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.processes import finish, rank_environments, run_python
from tests.training.two_ranks import CASES, CHUNKED, Case
from training.data.dataset import Dataset
from training.model import distributed, global_norm
from training.model.encoder import build_encoder, build_head
from training.recipe.config import EncoderConfig, HeadConfig

Ranks = list[dict[str, Any]]


@pytest.fixture(scope="module")
def ranks(coloured: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What each of two ranks found; see `two_ranks`."""
    out = tmp_path_factory.mktemp("ranks")
    arguments = ["-m", "tests.training.two_ranks", str(coloured.folder), str(out)]
    ended = finish([run_python(arguments, environment) for environment in rank_environments()], seconds=240)
    assert [code for code, _ in ended] == [0, 0], ended
    return [json.loads(Path(out, f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("number", range(len(CASES + CHUNKED)), ids=lambda n: str((CASES + CHUNKED)[n]))
def test_a_step_of_two_ranks_is_the_step_of_one_process(ranks: Ranks, number: int) -> None:
    """Every tensor as a share of its largest number: 1e-10 in float64; in float32 no more than its own rounding."""
    for rank in ranks:
        step = rank["steps"][number]
        case, differences = Case(**step["case"]), step["worst"]
        assert case == (CASES + CHUNKED)[number]
        assert sum(name.startswith("gradient of") for name in differences) > 60
        assert sum(name.endswith("running_var") for name in differences) > 20
        assert differences.pop("loss") < (1e-12 if case.double else 1e-6)
        difference, tensor = max((difference, name) for name, difference in differences.items())
        assert difference < (1e-10 if case.double else max(1e-5, 2 * step["rounding"])), tensor
        assert step["rounding"] < 1e-4


def test_a_gathered_part_has_the_gradient_of_every_rank(ranks: Ranks) -> None:
    for rank in ranks:
        assert len(rank["gather"]) == 6
        assert max(rank["gather"].values()) < 1e-12


def test_the_stand_in_is_batch_norm_of_the_whole_batch(ranks: Ranks) -> None:
    for rank in ranks:
        assert len(rank["norm"]) == 8
        for name, difference in rank["norm"].items():
            assert difference < (1e-12 if "float64" in name else 2e-6), name


def test_errors_reach_every_rank(ranks: Ranks) -> None:
    odd = "ValueError: batch_size is 13; it must be a multiple of the 2 processes"
    assert ranks[0]["errors"] == {
        "odd": odd,
        "first": "OSError: full",
        "second": "PeerError: stopped, because rank 1 failed",
    }
    assert ranks[1]["errors"] == {
        "odd": odd,
        "first": "PeerError: stopped, because rank 0 failed",
        "second": "OSError: unread",
    }


def test_cuda_devices_get_torchs_own_synchronised_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a second process nothing changes; with one, parameters and buffers stay the same objects."""
    encoder, head = build_encoder(EncoderConfig("resnet18", image_size=8)), build_head(HeadConfig(hidden=8), 512)
    for part in (encoder, head):
        before = dict(part.named_parameters()) | dict(part.named_buffers())
        norms = [name for name, module in part.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        global_norm.with_global_statistics(part, torch.device("cuda"))
        assert not any(isinstance(module, nn.SyncBatchNorm) for module in part.modules())
        with monkeypatch.context() as patch:
            patch.setattr(global_norm, "world_size", lambda: 2)
            global_norm.with_global_statistics(part, torch.device("cuda"))
        assert all(isinstance(part.get_submodule(name), nn.SyncBatchNorm) for name in norms)
        after = dict(part.named_parameters()) | dict(part.named_buffers())
        assert list(after) == list(before)
        assert all(after[name] is value for name, value in before.items())


def test_one_process_needs_no_group() -> None:
    with distributed.process_group("cpu"):
        assert not torch.distributed.is_initialized()
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
    values = torch.ones(2, 3)
    assert distributed.gather(values, dim=1) is values
    assert distributed.shared([1.0, 2.0], torch.device("cpu")) == [[1.0, 2.0]]
