"""Devices, precision, memory format and compiling, as far as a machine without a GPU can tell."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models.resnet import BasicBlock, ResNet

from tests.training.two_ranks import BATCH, CPU, TINY, tensors_of, worst
from training.data.dataset import Dataset
from training.model.device import choose_device, choose_precision, should_compile
from training.model.distributed import own_device
from training.model.encoder import Encoder, build_encoder, build_head, place
from training.model.nt_xent import nt_xent
from training.model.optimise import build_optimiser
from training.model.pixels import IMAGENET, normalise
from training.recipe.config import EncoderConfig, PretrainConfig, override
from training.run import step as steps
from training.run.checkpoint import TrainingState
from training.run.run import open_run
from training.run.step import Inputs, Network, build_network, prepare, train_step

CUDA = torch.device("cuda:0")


def made(data: Dataset, out: Path, **changes: object) -> tuple[TrainingState, Inputs]:
    """A state in train mode and the inputs of its step 3."""
    config = override(PretrainConfig(), TINY | {key.replace("__", "."): value for key, value in changes.items()})
    state = open_run(data, out, config, device=CPU)
    state.encoder.train()
    state.head.train()
    images = torch.from_numpy(np.array(data.images[:BATCH]))
    return state, prepare(state.config, images, 3, total=10)


def moved(state: TrainingState, inputs: Inputs, device: torch.device) -> tuple[TrainingState, Inputs]:
    """Another of the kind on a device that computes nothing; the draws stay on the CPU, where the product has them."""
    config = state.config
    encoder = place(build_encoder(config.encoder), device)
    head = build_head(config.head, encoder.embedding_dim).to(device)
    optimiser = build_optimiser(nn.ModuleList([encoder, head]), config.optimiser)
    images = torch.empty(inputs.images.shape, dtype=torch.uint8, device=device)
    return replace(state, encoder=encoder, head=head, optimiser=optimiser), replace(inputs, images=images)


@pytest.mark.parametrize("chunk", [0, 5])
def test_a_whole_step_stays_on_its_device(
    coloured: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """On the meta device, which refuses to mix with others: views, normalising, network, loss, backward, optimiser."""
    state, inputs = moved(
        *made(coloured, tmp_path, views__blur_p=0.5, chunk_size=chunk, loss="dcl"), torch.device("meta")
    )
    monkeypatch.setattr(torch, "autocast", NoAutocast)  # which does not know this device
    loss = train_step(state, build_network(state), inputs)
    state.optimiser.step()
    assert loss.device.type == "meta"
    assert {tensor.device.type for tensor in tensors_of(state).values()} == {"meta"}
    assert all(parameter.grad is not None for parameter in state.parameters().values())


class NoAutocast:
    """Stands in for `torch.autocast`."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
def test_on_a_gpu_normalising_network_and_loss_mix_with_no_other_device(coloured: Dataset, tmp_path: Path) -> None:
    """With fake CUDA tensors: the shapes and devices of the real ones, and an error where devices meet."""
    config = made(coloured, tmp_path)[0].config
    with FakeTensorMode():
        with CUDA:  # made there, for fake parameters can't be moved
            encoder = build_encoder(config.encoder, seed=None)
            network = Network(encoder, build_head(config.head, encoder.embedding_dim))
        views = normalise(torch.empty(2 * BATCH, 3, 8, 8, device=CUDA), IMAGENET)
        z = network(views.contiguous(memory_format=torch.channels_last)).unflatten(0, (2, -1))
        for decoupled in (False, True):
            loss = nt_xent(z.bfloat16(), 0.5, decoupled=decoupled)
            assert (loss.device, loss.dtype, loss.shape) == (CUDA, torch.float32, ())
        with pytest.raises(Exception, match="two devices, cuda:0 and cpu"):
            views + torch.ones(3, 1, 1)
    assert z.device == CUDA


def test_convolutions_see_channels_last_from_the_first_to_the_last(cifar: Dataset, tmp_path: Path) -> None:
    state, inputs = made(cifar, tmp_path, encoder__stem="small")
    seen: list[bool] = []

    def look(module: nn.Module, given: tuple[Tensor], got: Tensor) -> None:
        weight = module.get_parameter("weight")
        seen.extend(t.is_contiguous(memory_format=torch.channels_last) for t in (given[0], got, weight))

    for module in state.encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(look)
    train_step(state, build_network(state), inputs)
    assert len(seen) == 3 * 20
    assert all(seen)
    gradient = state.encoder.layer2[0].conv1.weight.grad
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_bf16_computes_in_half_and_keeps_weights_loss_and_gradients_in_float32(cifar: Dataset, tmp_path: Path) -> None:
    exact, inputs = made(cifar, tmp_path, encoder__stem="small")
    half, _ = made(cifar, tmp_path, encoder__stem="small", precision="bf16")
    kinds: list[torch.dtype] = []
    half.encoder.layer4.register_forward_hook(lambda _, given, got: kinds.append(got.dtype))
    losses = [train_step(state, build_network(state), inputs) for state in (exact, half)]
    assert kinds == [torch.bfloat16]
    assert {tensor.dtype for tensor in tensors_of(half).values()} == {torch.float32, torch.int64}
    assert losses[1].dtype == torch.float32
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)
    assert losses[1].item() != losses[0].item()
    gradients = [
        torch.cat([p.grad.flatten() for p in s.parameters().values() if p.grad is not None]) for s in (exact, half)
    ]
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0).item() > 0.9


def test_compiled_the_network_learns_the_same(
    coloured: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For real, with the compiler of the CPU; one convolution and a linear head, for a ResNet takes it minutes."""
    for setting, value in {"compile_threads": 1, "cpp.simdlen": 1, "cpp_cache_precompile_headers": False}.items():
        monkeypatch.setattr(
            f"torch._inductor.config.{setting}", value
        )  # for speed of compiling, not of what is compiled
    outcomes = []
    for compiled in (False, True):
        state, inputs = made(coloured, tmp_path, head__kind="linear")
        torch.manual_seed(0)
        encoder = Encoder(ResNet(BasicBlock, [1, 1, 1, 1]))
        encoder.layer1 = encoder.layer2 = encoder.layer3 = encoder.layer4 = nn.Sequential()
        state.encoder, state.head = encoder, build_head(state.config.head, 64)
        loss = train_step(state, build_network(state, compiled=compiled), inputs)
        outcomes.append({"loss": loss} | tensors_of(state))
    difference, name = max((share, name) for name, share in worst(outcomes[1], outcomes[0]).items())
    assert difference < 1e-4, name
    assert worst(outcomes[1], outcomes[0])["loss"] < 1e-5


def test_only_what_is_compiled_is_wrapped(coloured: Dataset, tmp_path: Path) -> None:
    state, _ = made(coloured, tmp_path)
    assert type(build_network(state)) is steps.Network
    wrapped = build_network(state, compiled=True)
    assert type(wrapped).__name__ == "OptimizedModule"
    assert {id(p) for p in wrapped.parameters()} == {id(p) for p in state.parameters().values()}


@pytest.mark.parametrize(
    ("choice", "device", "compiles"),
    [("auto", "cpu", False), ("auto", "cuda", True), ("on", "cpu", True), ("off", "cuda", False)],
)
def test_compiling_is_for_cuda_unless_asked(choice: str, device: str, compiles: bool) -> None:
    assert should_compile(choice, torch.device(device)) == compiles  # type: ignore[arg-type]
    assert should_compile(choice, torch.device(device), processes=2) == (choice == "on")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "native", "expected"),
    [("cuda", True, "bf16"), ("cuda", False, "fp32"), ("cpu", True, "bf16"), ("cpu", False, "fp32")],
)
def test_auto_precision_is_what_the_device_has(
    monkeypatch: pytest.MonkeyPatch, device: str, native: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native, "avx2": True})
    encoder = EncoderConfig(stem="small", image_size=32)
    assert choose_precision("auto", torch.device(device), encoder) == expected
    assert choose_precision("fp32", torch.device(device), encoder) == "fp32"
    assert choose_precision("bf16", torch.device(device), encoder) == "bf16"


def test_precision_follows_the_smallest_views_on_a_cpu_only(
    monkeypatch: pytest.MonkeyPatch, coloured: Dataset, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    one_pixel = EncoderConfig(stem="small_stride2", image_size=8)
    assert choose_precision("auto", CUDA, one_pixel) == choose_precision("bf16", CUDA, one_pixel) == "bf16"
    assert choose_precision("auto", CPU, one_pixel) == "fp32"
    for sizes, expected in ([8, 12], "fp32"), ([12, 16], "bf16"):
        stages = [[size, 0.5] for size in sizes]
        state, _ = made(coloured, tmp_path, precision="auto", resolutions=stages)
        assert state.config.precision == expected


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device() == choose_device("cpu") == CPU
    with pytest.raises(ValueError, match="device is 'cuda', but this machine has 0 CUDA devices"):
        choose_device("cuda")
    with pytest.raises(ValueError, match="device is 'gpu'; accepted: auto, cpu, cuda, cuda:N"):
        choose_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device() == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="device is 'cuda:2', but this machine has 2 CUDA devices"):
        choose_device("cuda:2")


def test_each_process_of_torchrun_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device("cuda:1") == torch.device("cuda:1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    for local in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(local))
        assert own_device() == own_device("cuda") == torch.device(f"cuda:{local}")
        assert own_device("cpu") == CPU
    with pytest.raises(ValueError, match="device is 'cuda:1', one device for 3 processes; take cuda"):
        own_device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="device is 'cuda:2', but this machine has 2"):
        own_device()
