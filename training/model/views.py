"""Random views of a batch of images, on its device, one independent draw per image (SimCLR, Appendix A).

A view is a random resized crop and flip, then colour jitter in random order, grey, and blur. `draw` makes
every random number on the CPU from one generator, so that a seed means the same views on every device and the
device is never waited for; `apply` is then a pure function, in batches. The colour operations are in
`training.model.colour`.

Cropping, resizing and flipping are one linear map per axis: view = A_y @ image @ A_x^T with a (T, S) matrix per
image, from S pixels to the T of the view, which may be more or fewer. The matrices hold the triangle filter of
torchvision's antialiased bilinear resize, widened when a crop is reduced, so the result equals torchvision's in
both directions. Blur is such a pair of matrices too, of the view's size.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from training.model.colour import OPERATIONS, grey
from training.model.device import sent
from training.model.pixels import to_float
from training.recipe.config import ViewsConfig

_STREAM = 1  # of the streams of one seed; `training.run.batches` has another
CROP_RATIO = (3 / 4, 4 / 3)
_CROP_TRIALS = 10
BLUR_SIGMA = (0.1, 2.0)
BLUR_SHARE = 0.1  # of the view's size


@dataclass(frozen=True)
class Draws:
    """The random numbers of one view of each of N images, on the CPU.

    crop: int64 (N, 4), top, left, height, width in pixels. flip, coloured, greyed, blurred: bool (N,).
    factors: float32 (N, 4), of brightness, contrast, saturation, hue. order: int64 (N, 4), the operation in
    each of the four places. sigma: float32 (N,), of the blur, in pixels.
    """

    crop: Tensor
    flip: Tensor
    coloured: Tensor
    factors: Tensor
    order: Tensor
    greyed: Tensor
    blurred: Tensor
    sigma: Tensor

    def rows(self, part: slice) -> "Draws":
        """The draws of some of the images."""
        return Draws(**{field.name: getattr(self, field.name)[part] for field in fields(self)})


def views_generator(seed: int, step: int) -> torch.Generator:
    """The generator of one step's views, on the CPU."""
    state = np.random.SeedSequence([seed, _STREAM, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))  # manual_seed takes 63 bits


def random_views(images: Tensor, config: ViewsConfig, generator: torch.Generator, *, size: int | None = None) -> Tensor:
    """`config.count` independent views of each image.

    Args:
        images: uint8 (N, S, S, 3), RGB, on any device.
        config: the distribution to draw from, and the number of views V.
        generator: on the CPU.
        size: the side T of the views in pixels; the images' own if None.

    Returns:
        float32 (V, N, 3, T, T) in [0, 1] on the images' device, not yet normalised.
    """
    height, width = images.shape[1:3]
    return apply_all(images, draw_all(len(images), config, height=height, width=width, generator=generator), size=size)


def draw_all(n: int, config: ViewsConfig, *, height: int, width: int, generator: torch.Generator) -> list[Draws]:
    """Draw every view of `n` images, one `Draws` a view."""
    return [draw(n, config, height=height, width=width, generator=generator) for _ in range(config.count)]


def apply_all(images: Tensor, draws: list[Draws], *, size: int | None = None) -> Tensor:
    """The views of uint8 (N, S, S, 3) that `draws` describe: float32 (V, N, 3, T, T), as `random_views`."""
    floats = to_float(images)
    return torch.stack([apply(floats, one, size=size) for one in draws])


def draw(n: int, config: ViewsConfig, *, height: int, width: int, generator: torch.Generator) -> Draws:
    """Draw `n` views of images of height x width pixels."""

    def chance(p: float) -> Tensor:
        return torch.rand(n, generator=generator) < p

    reach = config.colour_strength * torch.tensor([0.8, 0.8, 0.8, 0.2])
    low = (1 - reach).clamp_min(0)  # brightness, contrast and saturation can't go below 0
    low[3] = 1 - reach[3]
    factors = low + (1 + reach - low) * torch.rand(n, 4, generator=generator)
    factors[:, 3] -= 1  # hue turns by -0.2s to 0.2s of the circle
    return Draws(
        crop=_draw_crops(n, config, height, width, generator),
        flip=chance(config.flip_p),
        coloured=chance(config.colour_p),
        factors=factors,
        order=torch.rand(n, 4, generator=generator).argsort(dim=1),
        greyed=chance(config.grey_p),
        blurred=chance(config.blur_p),
        sigma=torch.empty(n).uniform_(*BLUR_SIGMA, generator=generator),
    )


def apply(images: Tensor, draws: Draws, *, size: int | None = None) -> Tensor:
    """The views that `draws` describes: float (N, 3, H, W) in [0, 1] to (N, 3, T, T), or (N, 3, H, W) without size."""
    device, dtype = images.device, images.dtype
    height, width = images.shape[2:]
    top, left, crop_height, crop_width = sent(draws.crop, device).unbind(1)
    rows = resize_matrix(top, crop_height, source=height, target=size or height)
    columns = resize_matrix(left, crop_width, source=width, target=size or width)
    columns = torch.where(sent(draws.flip, device)[:, None, None], columns.flip(1), columns)
    views = _map_axes(images, rows.to(dtype), columns.to(dtype))
    for place in range(4):
        for number, operation in enumerate(OPERATIONS):
            chosen = (draws.coloured & (draws.order[:, place] == number)).nonzero()[:, 0]
            if len(chosen):
                factor = sent(draws.factors[chosen, number].to(dtype), device).view(-1, 1, 1, 1)
                chosen = sent(chosen, device)
                views[chosen] = operation(views[chosen], factor)
    greyed = sent(draws.greyed.nonzero()[:, 0], device)
    views[greyed] = grey(views[greyed]).expand(-1, 3, -1, -1)
    return _blur(views, draws)


def resize_matrix(start: Tensor, length: Tensor, *, source: int, target: int) -> Tensor:
    """The matrices that resize pixels [start, start + length) of an axis of `source` to `target` pixels.

    `start` and `length` are int64 (N,); the result is float32 (N, target, source), each row summing to 1. It
    is torchvision's bilinear resize with antialias: a triangle of half-width max(1, length / target) around
    the centre, cut off at the crop's edges and normalised.
    """
    scale = (length / target)[:, None, None]
    reach = scale.clamp_min(1)
    centre = (torch.arange(target, device=start.device) + 0.5)[None, :, None] * scale
    pixel = torch.arange(source, device=start.device)[None, None, :] - start[:, None, None]
    weight = (1 - ((pixel + 0.5 - centre) / reach).abs()).clamp_min(0)
    weight = weight * ((pixel >= 0) & (pixel < length[:, None, None]))
    return weight / weight.sum(dim=2, keepdim=True)


def blur_matrix(sigma: Tensor, *, size: int, radius: int) -> Tensor:
    """The matrices of a Gaussian blur along an axis of `size` pixels, reflecting at its ends.

    `sigma` is float32 (N,), in pixels; the kernel has 2 radius + 1 taps. Returns float32 (N, size, size) beside it.
    """
    device = sigma.device
    taps = torch.arange(-radius, radius + 1, device=device)
    kernel = torch.softmax(-0.5 * (taps[None] / sigma[:, None]) ** 2, dim=1)
    index = (torch.arange(size, device=device)[:, None] + taps[None]).abs()  # reflect below 0 ...
    index = (size - 1) - ((size - 1) - index).abs()  # ... and above size - 1
    matrix = torch.zeros(len(sigma), size, size, device=device)
    return matrix.scatter_add_(2, index.expand(len(sigma), -1, -1), kernel[:, None, :].expand(-1, size, -1))


def _blur(views: Tensor, draws: Draws) -> Tensor:
    blurred = draws.blurred.nonzero()[:, 0]
    if not len(blurred):
        return views
    height, width = views.shape[2:]
    radius = max(1, int(BLUR_SHARE * min(height, width)) // 2)
    sigma = sent(draws.sigma[blurred], views.device)
    rows = blur_matrix(sigma, size=height, radius=radius).to(views.dtype)
    columns = rows if width == height else blur_matrix(sigma, size=width, radius=radius).to(views.dtype)
    blurred = sent(blurred, views.device)
    views[blurred] = _map_axes(views[blurred], rows, columns)
    return views


def _map_axes(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ image @ columns^T for each channel of (N, C, H, W), with a matrix per image."""
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def _draw_crops(n: int, config: ViewsConfig, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Crops as torchvision's RandomResizedCrop.get_params draws them: the first of ten trials that fits."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, _CROP_TRIALS, generator=generator, dtype=torch.float64)

    area = height * width * uniform(config.crop_min, config.crop_max)
    ratio = uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])).exp()
    widths, heights = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    trial = fits.int().argmax(dim=1, keepdim=True)
    fallback_height, fallback_width = _widest_crop(height, width)
    crop_height = torch.where(fits.any(dim=1), heights.gather(1, trial)[:, 0], fallback_height)
    crop_width = torch.where(fits.any(dim=1), widths.gather(1, trial)[:, 0], fallback_width)
    place = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    place[~fits.any(dim=1)] = 0.5
    top = (place[:, 0] * (height - crop_height + 1)).long()
    left = (place[:, 1] * (width - crop_width + 1)).long()
    return torch.stack([top, left, crop_height, crop_width], dim=1)


def _widest_crop(height: int, width: int) -> tuple[int, int]:
    """The central crop for an image so narrow that no trial fits: as much as the ratio's range allows."""
    if width / height < CROP_RATIO[0]:
        return round(width / CROP_RATIO[0]), width
    if width / height > CROP_RATIO[1]:
        return height, round(height * CROP_RATIO[1])
    return height, width
