"""NT-Xent, the normalised temperature-scaled cross entropy of SimCLR (section 2.1, equation 1), for V views.

Each of the V N projections of a batch is an anchor once. Its positives are the V - 1 other views of its image, its
negatives all views of the other images. The loss is the mean, over anchors and positives, of the cross entropy of
picking the positive by cosine similarity over temperature: the "out" form of Khosla et al. 2020 (arXiv 2004.11362,
equation 2) with the image as the class, and with V = 2 exactly SimCLR's. Decoupled (DCL, Yeh et al. 2022, arXiv
2110.06848, equation 6) the positives leave the denominator, whose gradient they damp in small batches.

The batch size is read from the inputs, never kept. With several processes the negatives are everybody's
(`training.model.distributed`).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.model.distributed import first_of_rank, gather


def nt_xent(z: Tensor, temperature: float, *, decoupled: bool = False) -> Tensor:
    """The loss of V views' projections; z[v, i] comes from image i.

    Args:
        z: (V, N, d), V at least 2, of any floating type, not yet normalised; this process's N images.
        temperature: tau, above 0.
        decoupled: DCL instead of NT-Xent.

    Returns:
        A scalar, the mean over the V N anchors of this process, so that the mean over processes, of losses or of
        gradients, is the whole batch's. In float32 (float64 for float64 inputs), whatever autocast is around it:
        in half precision exp(1 / tau) and the sum over negatives lose the digits that the gradient is made of.

    Raises:
        ValueError: z has another shape, fewer than 2 images over all processes, or the temperature is not above 0.
    """
    if z.ndim != 3 or z.shape[0] < 2 or z.shape[1] < 1:
        raise ValueError(f"z has shape {tuple(z.shape)}; (V, N, d) with V at least 2 is needed")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    with torch.autocast(z.device.type, enabled=False):
        z = F.normalize(z if z.dtype == torch.float64 else z.float(), dim=2)
        everything = gather(z, dim=1)
        if everything.shape[1] < 2:
            raise ValueError(f"z has shape {tuple(z.shape)}; at least 2 images are needed, for negatives")
        return _contrast(z, everything, first_of_rank(z.shape[1]), temperature=temperature, decoupled=decoupled)


def _contrast(anchors: Tensor, everything: Tensor, first: int, *, temperature: float, decoupled: bool) -> Tensor:
    """The loss of anchors (V, N, d) among everything (V, M, d), in which their images begin at `first`."""
    views, count, _ = anchors.shape
    total = everything.shape[1]
    similarity = anchors.flatten(0, 1) @ everything.flatten(0, 1).T / temperature
    steps = torch.arange(views, device=anchors.device)
    view = steps.repeat_interleave(count)[:, None]  # of each anchor
    image = torch.arange(first, first + count, device=anchors.device).repeat(views)[:, None]
    same_image = (view + steps) % views * total + image  # columns: the anchor itself, then its positives
    positive = similarity.gather(1, same_image[:, 1:]).mean(dim=1)
    left_out = same_image if decoupled else same_image[:, :1]
    return (similarity.scatter(1, left_out, -torch.inf).logsumexp(dim=1) - positive).mean()


def loss_floor(images: int, views: int, temperature: float, *, decoupled: bool = False) -> float:
    """A loss that no projections of `images` images in `views` views can undercut.

    With p the mean cosine of positives and n that of negatives, Jensen's inequality gives a loss of at least
    log((V - 1) + V (N - 1) exp((n - p) / tau)), for DCL log(V (N - 1)) + (n - p) / tau. The squared length of the
    sum of all unit vectors is not negative, so n >= -(1 + (V - 1) p) / (V (N - 1)), and n - p is least at p = 1,
    where n = -1 / (N - 1). Views that agree and images on the corners of a simplex, which needs N - 1 dimensions,
    attain it.
    """
    gap = -(1 / (images - 1) + 1) / temperature
    negatives = views * (images - 1)
    if decoupled:
        return math.log(negatives) + gap
    return math.log(views - 1 + negatives * math.exp(gap))
