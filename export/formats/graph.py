"""The served graph: uint8 pixels in; unit-norm embedding, and logits if there is a probe, out.

Scaling to [0, 1], normalisation, encoder, L2 norm and linear probe are inside, so host code has nothing to get
wrong but decoding. The projection head stays behind (SimCLR section 4.2: h represents better than z = g(h)).
"""

import copy
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.measures.probe import Probe
from training.model.encoder import Encoder


class ServingGraph(nn.Module):
    """uint8 images (N, S, S, 3), RGB -> embedding (N, D), and with a probe also logits (N, C)."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: Encoder, *, mean: tuple[float, ...], std: tuple[float, ...], probe: Probe | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.embedding_dim = int(encoder.embedding_dim)
        self.precision = torch.float32
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))
        self.probe = _linear(probe) if probe is not None else None
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """uint8 images (N, S, S, 3) to (embedding (N, D),) or (embedding, logits (N, C)), float32."""
        pixels = images.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        h = self.encoder(((pixels - self.mean) / self.std).to(self.precision)).to(torch.float32)
        embedding = functional.normalize(h, dim=1)
        return (embedding,) if self.probe is None else (embedding, self.probe(embedding))

    def in_half_precision(self) -> Self:
        """A copy whose encoder computes in float16; what stands before and after it stays float32.

        The norm's sum of squares may exceed the largest number of float16.
        """
        half = copy.deepcopy(self)
        half.encoder.half()
        half.precision = torch.float16
        return half

    @property
    def output_names(self) -> list[str]:
        """The graph's outputs, in order, as every format names them."""
        return ["embedding"] if self.probe is None else ["embedding", "logits"]


def _linear(probe: Probe) -> nn.Linear:
    weight, bias = torch.as_tensor(probe.weight), torch.as_tensor(probe.bias)
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
