"""BatchNorm over the whole batch of several processes, on any device.

torch's SyncBatchNorm does it on CUDA devices and refuses the CPU, where `GlobalBatchNorm` stands in: slower, for its
mean and its variance are two collectives, and small enough to check. Both keep BatchNorm's names in the state dict,
so that a checkpoint does not tell how many processes wrote it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from training.model.distributed import mean_over_ranks, world_size


class GlobalBatchNorm(_BatchNorm):
    """BatchNorm over the batches of all processes, which are of one size: SyncBatchNorm for devices it lacks.

    (N, C) or (N, C, H, W) to the same shape; in eval mode an ordinary BatchNorm. Its state dict is BatchNorm's.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise in float32 by the whole batch's mean and variance, and follow them in the running ones."""
        if not self.training:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        with torch.autocast(input.device.type, enabled=False):
            x = input if input.dtype == torch.float64 else input.float()
            axes = [axis for axis in range(x.ndim) if axis != 1]
            column = [1, -1, *[1] * (x.ndim - 2)]
            mean = mean_over_ranks(x.mean(dim=axes))
            centred = x - mean.view(column)
            variance = mean_over_ranks(centred.square().mean(dim=axes))
            self._follow(mean.detach(), variance.detach(), world_size() * x.numel() // x.shape[1])
            normal = centred * (variance + self.eps).rsqrt().view(column)
            if self.affine:
                normal = normal * self.weight.view(column) + self.bias.view(column)
            return normal.to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        self.num_batches_tracked.add_(1)

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def with_global_statistics(model: nn.Module, device: torch.device) -> None:
    """If there are several processes, replace every BatchNorm below `model`, keeping parameters and buffers."""
    if world_size() == 1:
        return
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, _globalised(child))


def _globalised(norm: _BatchNorm) -> GlobalBatchNorm:
    found = GlobalBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine)
    found.weight, found.bias = norm.weight, norm.bias
    found.running_mean, found.running_var = norm.running_mean, norm.running_var
    found.num_batches_tracked = norm.num_batches_tracked
    return found.train(norm.training)
