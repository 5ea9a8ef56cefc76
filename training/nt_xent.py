"""NT-Xent, the normalised temperature-scaled cross entropy of SimCLR (section 2.1, equation 1, Algorithm 1).

Of the 2N projections of a batch, each has one positive (the other view of its image) and 2N - 2 negatives
(all the rest but itself). The loss is the mean, over all 2N, of the cross entropy of picking the positive by
cosine similarity over temperature. One matrix product gives every similarity.

The batch size is read from the inputs, never kept. Left out until it is needed: negatives from other
processes, more than two views.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """The loss of two batches of projections; row i of both comes from image i.

    Args:
        first: (N, d), N at least 2, of any floating type; not yet normalised.
        second: the same shape.
        temperature: tau, above 0.

    Returns:
        A scalar in float32 (float64 for float64 inputs), whatever autocast is around it: in half precision
        exp(1 / tau) and the sum over 2N - 1 terms lose the digits that the gradient is made of.

    Raises:
        ValueError: shapes differ or are not (N >= 2, d), or the temperature is not above 0.
    """
    if first.shape != second.shape or first.ndim != 2 or len(first) < 2:
        raise ValueError(
            f"first has shape {tuple(first.shape)} and second {tuple(second.shape)}; "
            "both must be the same (N, d) with N at least 2"
        )
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    count = len(first)
    with torch.autocast(first.device.type, enabled=False):
        z = torch.cat([first, second])
        z = F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)
        similarity = z @ z.T / temperature
        itself = torch.eye(2 * count, dtype=torch.bool, device=z.device)
        positive = torch.arange(2 * count, device=z.device).roll(count)
        return F.cross_entropy(similarity.masked_fill(itself, -torch.inf), positive)
