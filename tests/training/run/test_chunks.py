"""GradCache: a batch in chunks has the loss and the gradient of the whole, and never more of it in the network."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.training.two_ranks import BATCH, CPU, TINY, DoubleInputs, tensors_of, worst
from training.data.dataset import Dataset
from training.model.nt_xent import nt_xent
from training.model.views import draw_all
from training.recipe.config import PretrainConfig, override
from training.run.checkpoint import TrainingState
from training.run.run import open_run
from training.run.step import Inputs, Network, build_network, prepare, train_step

Make = Callable[..., tuple[TrainingState, Inputs]]


@pytest.fixture
def make(coloured: Dataset, tmp_path: Path) -> Make:
    """A state and the inputs of its step 3; dotted keys override, with __ for the dot."""

    def made(*, double: bool, **changes: object) -> tuple[TrainingState, Inputs]:
        config = override(PretrainConfig(), TINY | {key.replace("__", "."): value for key, value in changes.items()})
        state = open_run(coloured, tmp_path, config, device=CPU)
        inputs = prepare(state.config, torch.from_numpy(np.array(coloured.images[:BATCH])), 3, total=10)
        for part in (state.encoder, state.head):
            part.train()
            part.double() if double else part.float()
        return state, DoubleInputs(inputs.images, inputs.draws, inputs.size) if double else inputs

    return made


def one_step(state: TrainingState, inputs: Inputs) -> dict[str, Tensor]:
    loss = train_step(state, build_network(state), inputs)
    assert not loss.requires_grad
    return {"loss": loss} | tensors_of(state)


def freeze_norms(state: TrainingState) -> None:
    for part in (state.encoder, state.head):
        part.eval()


def remove_norms(state: TrainingState) -> None:
    for part in (state.encoder, state.head):
        for module in list(part.modules()):
            for name, child in module.named_children():
                if isinstance(child, _BatchNorm):
                    setattr(module, name, nn.Identity())


@pytest.mark.parametrize("prepare_norms", [freeze_norms, remove_norms])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize(("loss", "views"), [("nt_xent", 2), ("dcl", 3)])
def test_without_batch_statistics_chunks_are_the_whole(
    make: Make, prepare_norms: Callable[[TrainingState], None], double: bool, loss: str, views: int
) -> None:
    outcomes = []
    for chunk in (0, 1, 5, 12):
        state, inputs = make(double=double, loss=loss, views__count=views, chunk_size=chunk)
        prepare_norms(state)
        outcomes.append(one_step(state, inputs))
    for outcome in outcomes[1:]:
        difference, name = max((share, name) for name, share in worst(outcome, outcomes[0]).items())
        assert difference < (1e-12 if double else 1e-5), name


def naive(state: TrainingState, inputs: Inputs, size: int) -> dict[str, Tensor]:
    """Every chunk once through the network in train mode, one graph over all of them, one loss, one backward."""
    network = Network(state.encoder, state.head)
    parts = [slice(first, first + size) for first in range(0, BATCH, size)]
    z = [network(inputs.views(part, state.normalisation)).unflatten(0, (len(inputs.draws), -1)) for part in parts]
    loss = nt_xent(torch.cat(z, dim=1), state.config.temperature, decoupled=state.config.loss == "dcl")
    loss.backward()
    return {"loss": loss.detach()} | tensors_of(state)


@pytest.mark.parametrize(("chunk", "even"), [(3, 3), (5, 4)])
@pytest.mark.parametrize(("loss", "views"), [("nt_xent", 2), ("dcl", 3)])
def test_batch_norm_has_the_statistics_of_a_chunk_and_follows_them_once(
    make: Make, chunk: int, even: int, loss: str, views: int
) -> None:
    changes = {"loss": loss, "views__count": views, "chunk_size": chunk}
    expected = naive(*make(double=True, **changes), even)
    state, inputs = make(double=True, **changes)
    found = one_step(state, inputs)
    difference, name = max((share, name) for name, share in worst(found, expected).items())
    assert difference < 1e-10, name
    assert int(found["encoder.bn1.num_batches_tracked"]) == -(-BATCH // chunk)
    whole, inputs = make(double=True, **changes | {"chunk_size": 0})
    assert worst(one_step(whole, inputs), expected)["encoder.bn1.running_var"] > 1e-4  # another network, as documented


def sizes_seen(state: TrainingState) -> list[tuple[int, bool]]:
    """Fills up with the size of every batch that enters the encoder, and whether a graph is kept of it."""
    seen: list[tuple[int, bool]] = []
    state.encoder.register_forward_pre_hook(lambda _, given: seen.append((len(given[0]), torch.is_grad_enabled())))
    return seen


def test_no_more_than_a_chunk_is_in_the_network_and_chunks_are_even(make: Make) -> None:
    state, inputs = make(double=False, views__count=3, chunk_size=5)
    seen = sizes_seen(state)
    train_step(state, build_network(state), inputs)
    assert seen == [(12, False)] * 3 + [(12, True)] * 3


def test_activations_kept_for_the_backward_pass_do_not_grow_with_the_batch(make: Make) -> None:
    """Bytes that autograd keeps of the encoder at a time: of one chunk, however many there are."""

    def most_kept(batch: int, chunk: int) -> int:
        state, inputs = make(double=False, chunk_size=chunk)
        part = slice(0, batch)
        few = Inputs(inputs.images[part], [one.rows(part) for one in inputs.draws], inputs.size)
        kept, most = 0, 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal kept, most
            kept += tensor.nbytes if tensor.ndim == 4 and len(tensor) == 2 * min(batch, chunk or batch) else 0
            most = max(most, kept)
            return tensor

        def give(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept -= tensor.nbytes if tensor.ndim == 4 and len(tensor) == 2 * min(batch, chunk or batch) else 0
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, give):
            train_step(state, build_network(state), few)
        return most

    assert most_kept(12, 0) > 2.5 * most_kept(4, 0)
    assert most_kept(12, 4) < 1.2 * most_kept(4, 0)


def test_a_batch_of_thousands_runs(make: Make) -> None:
    """4,096 images of 4 px, 256 at a time; the loss of a fresh encoder is near that of guessing."""
    state, _ = make(double=False, chunk_size=256)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4096, 4, 4, 3), dtype=torch.uint8, generator=generator)
    draws = draw_all(4096, state.config.views, height=4, width=4, generator=generator)
    seen = sizes_seen(state)
    loss = train_step(state, build_network(state), Inputs(images, draws, 4))
    assert max(size for size, _ in seen) == 512
    assert len(seen) == 2 * 16
    assert 5 < loss.item() < 10  # guessing: log(8,191) = 9.01
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in state.parameters().values())


def test_a_chunk_as_large_as_the_batch_costs_no_second_pass(make: Make) -> None:
    for chunk in (12, 50):
        state, inputs = make(double=False, chunk_size=chunk)
        seen = sizes_seen(state)
        train_step(state, build_network(state), inputs)
        assert seen == [(24, True)]
