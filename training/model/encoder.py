"""The encoder (a ResNet without its classifier) and the projection head of SimCLR.

The encoder is a torchvision ResNet. Its output is the raw embedding h before L2 normalisation; what is served is
h / |h|. The head exists only in training.
"""

import logging
from typing import Self

import torch
import torchvision
from torch import Tensor, nn

from training.recipe.config import EncoderConfig, HeadConfig

logger = logging.getLogger(__name__)

# The V2 weights classify ImageNet better, but label smoothing and mixup make embeddings that transfer worse
# (Kornblith et al. 2021, "Why do better loss functions lead to less transferable features?").
IMAGENET_WEIGHTS = "IMAGENET1K_V1"


class Encoder(nn.Module):
    """A torchvision ResNet up to its global average pool: (N, 3, H, W) float to (N, embedding_dim).

    Parameter names are torchvision's own, so its state dicts load once `fc.*` is dropped.
    Build one with `build_encoder`, which sets the weights too.
    """

    def __init__(self, resnet: torchvision.models.ResNet) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = resnet.conv1, resnet.bn1, resnet.relu
        self.maxpool = resnet.maxpool
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4
        self.avgpool = resnet.avgpool
        self.embedding_dim: int = resnet.fc.in_features
        self.frozen = False

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images to (N, embedding_dim), not L2-normalised."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return torch.flatten(self.avgpool(x), 1)

    def train(self, mode: bool = True) -> Self:
        """Training mode, unless frozen: then BatchNorm keeps its statistics whatever a parent asks."""
        return super().train(mode and not self.frozen)


def build_encoder(config: EncoderConfig, *, seed: int | None = 0) -> Encoder:
    """The encoder of `config`, on the CPU in float32, its first weights drawn from `seed`.

    `weights="imagenet"` downloads torchvision's weights (or finds them under TORCH_HOME); a stem that is
    not the ordinary one keeps its random first convolution. `seed=None` draws nothing reproducible: for a
    caller that loads a state at once and asks no download of it, whatever `weights` says.
    """
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        options = {"zero_init_residual": config.zero_init_residual}
        resnet = torchvision.models.get_model(config.architecture, weights=None, **options)
        _set_stem(resnet, config)
    if config.weights == "imagenet" and seed is not None:
        _load_imagenet(resnet, config)
    return Encoder(resnet)


def freeze(encoder: Encoder) -> Encoder:
    """Freeze in place and return: no gradients, and BatchNorm in eval from now on, for good."""
    encoder.frozen = True
    encoder.requires_grad_(False)
    return encoder.eval()


def place(encoder: Encoder, device: torch.device) -> Encoder:
    """Move in place to a device, weights in channels_last (which convolutions are faster in), and return."""
    encoder.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return encoder


def build_head(config: HeadConfig, embedding_dim: int, *, seed: int = 0) -> nn.Module:
    """The projection head g, (N, embedding_dim) to (N, out); "none" is the identity (section 4.2).

    "mlp" is Linear without bias, BatchNorm, ReLU, Linear; "linear" is one Linear. With `norm_out` the last
    Linear has no bias and a BatchNorm without parameters follows it.
    """
    if config.kind == "none":
        return nn.Identity()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = embedding_dim if config.kind == "linear" else config.hidden
        last: list[nn.Module] = [nn.Linear(width, config.out, bias=not config.norm_out)]
        if config.norm_out:
            last.append(nn.BatchNorm1d(config.out, affine=False))
        if config.kind == "linear":
            return nn.Sequential(*last)
        first = nn.Linear(embedding_dim, config.hidden, bias=False)  # BatchNorm has the bias
        return nn.Sequential(first, nn.BatchNorm1d(config.hidden), nn.ReLU(inplace=True), *last)


def _set_stem(resnet: torchvision.models.ResNet, config: EncoderConfig) -> None:
    stem = config.resolved_stem
    if stem == "imagenet":
        return
    stride = 2 if stem == "small_stride2" else 1
    resnet.conv1 = nn.Conv2d(3, resnet.conv1.out_channels, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")
    resnet.maxpool = nn.Identity()


def _load_imagenet(resnet: torchvision.models.ResNet, config: EncoderConfig) -> None:
    weights = torchvision.models.get_model_weights(config.architecture)
    state = weights[IMAGENET_WEIGHTS if IMAGENET_WEIGHTS in weights.__members__ else "DEFAULT"].get_state_dict(
        progress=True, check_hash=True
    )
    if config.resolved_stem != "imagenet":
        del state["conv1.weight"]
        logger.info("the %s stem keeps its random first convolution", config.resolved_stem)
    missing, unexpected = resnet.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"conv1.weight"}, missing
