"""Each operation against torchvision at the same factor, and the draws against torchvision's distributions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from training.model import colour
from training.model.pixels import to_float
from training.model.views import Draws, apply, apply_all, blur_matrix, draw, draw_all, random_views, resize_matrix
from training.recipe.config import ViewsConfig

OFF = ViewsConfig(crop_min=1.0, crop_max=1.0, flip_p=0, colour_p=0, grey_p=0, blur_p=0)
DRAWS = 4000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_view(images: Tensor, config: ViewsConfig, *, size: int | None = None) -> Tensor:
    return random_views(images, config, generator(), size=size)[0]


@pytest.fixture(scope="module")
def images() -> Tensor:
    """12 images (12, 3, 16, 16) in [0, 1]; three of them grey, black and white."""
    images = torch.rand(12, 3, 16, 16, generator=generator())
    images[0] = images[0, :1]
    images[1], images[2] = 0, 1
    return images


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (colour.brightness, tv.adjust_brightness, (0.0, 0.3, 1.0, 1.7)),
        (colour.contrast, tv.adjust_contrast, (0.0, 0.3, 1.0, 1.7)),
        (colour.saturation, tv.adjust_saturation, (0.0, 0.3, 1.0, 1.7)),
        (colour.hue, tv.adjust_hue, (-0.5, -0.13, 0.0, 0.2, 0.5)),
    ],
)
def test_colours_are_torchvisions(ours: object, theirs: object, factors: tuple[float, ...], images: Tensor) -> None:
    each = torch.tensor([factors[i % len(factors)] for i in range(len(images))])
    expected = torch.stack([theirs(image, f.item()) for image, f in zip(images, each, strict=True)])  # type: ignore[operator]
    found = ours(images, each.view(-1, 1, 1, 1))  # type: ignore[operator]
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_grey_is_torchvisions(images: Tensor) -> None:
    torch.testing.assert_close(colour.grey(images), tv.rgb_to_grayscale(images), atol=1e-6, rtol=0)


@pytest.mark.parametrize("target", [16, 7, 24])
def test_crop_and_resize_are_torchvisions_antialiased(target: int, images: Tensor) -> None:
    boxes = torch.tensor([[0, 0, 16, 16], [3, 1, 9, 13], [5, 7, 11, 4], [15, 0, 1, 16]])
    rows = resize_matrix(boxes[:, 0], boxes[:, 2], source=16, target=target)
    columns = resize_matrix(boxes[:, 1], boxes[:, 3], source=16, target=target)
    found = rows[:, None] @ images[3:7] @ columns[:, None].transpose(2, 3)
    expected = [
        tv.resized_crop(image, *box.tolist(), size=[target, target], antialias=True)
        for image, box in zip(images[3:7], boxes, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
@pytest.mark.parametrize("radius", [1, 3])
def test_blur_is_torchvisions(sigma: float, radius: int, images: Tensor) -> None:
    matrix = blur_matrix(torch.tensor([sigma]), size=16, radius=radius)
    expected = tv.gaussian_blur(images, [2 * radius + 1] * 2, [sigma] * 2)
    torch.testing.assert_close(matrix @ images @ matrix.transpose(1, 2), expected, atol=1e-5, rtol=0)


def test_crops_are_distributed_as_torchvisions() -> None:
    config = ViewsConfig(crop_min=0.08)
    ours = draw(DRAWS, config, height=32, width=32, generator=generator()).crop.numpy()
    torch.manual_seed(1)
    blank, transform = [torch.empty(3, 32, 32)], v2.RandomResizedCrop(32, (0.08, 1.0), (3 / 4, 4 / 3))
    params = [transform.make_params(blank) for _ in range(DRAWS)]
    theirs = np.array([[p["top"], p["left"], p["height"], p["width"]] for p in params])
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    assert ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 1e-3
    assert ks_2samp(ours[:, 3] / ours[:, 2], theirs[:, 3] / theirs[:, 2]).pvalue > 1e-3
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= 32).all()


def test_factors_are_distributed_as_torchvisions() -> None:
    s = 0.5
    ours = draw(DRAWS, ViewsConfig(colour_strength=s), height=8, width=8, generator=generator())
    jitter = v2.ColorJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s)
    blur = v2.GaussianBlur(3, (0.1, 2.0))
    torch.manual_seed(1)
    params = [jitter.make_params([]) for _ in range(DRAWS)]
    for column, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        theirs = np.array([p[f"{name}_factor"] for p in params])
        assert ks_2samp(ours.factors[:, column].numpy(), theirs).pvalue > 1e-3
    sigmas = [blur.make_params([])["sigma"][0] for _ in range(DRAWS)]
    assert ks_2samp(ours.sigma.numpy(), sigmas).pvalue > 1e-3


def test_every_order_of_the_colours_is_as_likely() -> None:
    draws = draw(DRAWS, ViewsConfig(), height=8, width=8, generator=generator())
    codes = (draws.order * torch.tensor([64, 16, 4, 1])).sum(dim=1).numpy()
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == math.factorial(4)
    assert chisquare(counts).pvalue > 1e-3


def test_images_views_and_operations_draw_alone() -> None:
    """No number of an image's view tells another's, be it of its neighbour, its other view, or itself."""
    config = ViewsConfig(colour_p=0.5, grey_p=0.5, blur_p=0.5)
    first, second = draw_all(DRAWS, config, height=32, width=32, generator=generator())

    def columns(draws: Draws) -> Tensor:
        chances = torch.stack([draws.flip, draws.coloured, draws.greyed, draws.blurred, draws.sigma], dim=1)
        area = draws.crop[:, 2:].prod(dim=1, keepdim=True)
        return torch.cat([chances, draws.factors, draws.order[:, :1], area], dim=1).double()

    count = columns(first).shape[1]
    everything = torch.cat([columns(first)[:-1], columns(first)[1:], columns(second)[:-1]], dim=1)
    correlation = np.corrcoef(everything.T) - np.eye(3 * count)
    assert np.abs(correlation).max() < 5 / math.sqrt(DRAWS)


@pytest.mark.parametrize("name", ["flip", "colour", "grey", "blur"])
def test_probabilities(name: str) -> None:
    field = {"flip": "flip", "colour": "coloured", "grey": "greyed", "blur": "blurred"}[name]
    for p in (0.0, 0.3, 1.0):
        config = replace(ViewsConfig(), **{f"{name}_p": p})  # type: ignore[arg-type]
        share = getattr(draw(DRAWS, config, height=8, width=8, generator=generator()), field).float().mean().item()
        assert abs(share - p) <= 4 * math.sqrt(p * (1 - p) / DRAWS)


def test_with_everything_off_the_view_is_the_image() -> None:
    images = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8, generator=generator())
    torch.testing.assert_close(one_view(images, OFF), to_float(images), atol=1e-6, rtol=0)


def test_each_switch_does_its_own_thing_to_every_image() -> None:
    pixels = torch.randint(0, 256, (6, 20, 20, 3), dtype=torch.uint8, generator=generator())
    images = to_float(pixels)
    flipped = one_view(pixels, ViewsConfig(**{**vars(OFF), "flip_p": 1.0}))
    torch.testing.assert_close(flipped, images.flip(3), atol=1e-6, rtol=0)
    greyed = one_view(pixels, ViewsConfig(**{**vars(OFF), "grey_p": 1.0}))
    torch.testing.assert_close(greyed, tv.rgb_to_grayscale(images, 3), atol=1e-6, rtol=0)
    config = ViewsConfig(**{**vars(OFF), "blur_p": 1.0})
    sigma = draw(6, config, height=20, width=20, generator=generator()).sigma
    blurred = one_view(pixels, config)
    expected = [tv.gaussian_blur(image, [3, 3], [s.item()] * 2) for image, s in zip(images, sigma, strict=True)]
    torch.testing.assert_close(blurred, torch.stack(expected), atol=1e-5, rtol=0)


def test_colours_are_applied_in_the_order_drawn() -> None:
    images = to_float(torch.randint(0, 256, (24, 8, 8, 3), dtype=torch.uint8, generator=generator()))
    config = ViewsConfig(**{**vars(OFF), "colour_p": 1.0, "colour_strength": 1.0})
    draws = draw(24, config, height=8, width=8, generator=generator())
    steps = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    expected = []
    for image, order, factors in zip(images, draws.order, draws.factors, strict=True):
        view = image
        for number in order.tolist():
            view = steps[number](view, factors[number].item())
        expected.append(view)
    torch.testing.assert_close(apply(images, draws), torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [8, 24, 30])
def test_views_of_another_size_are_torchvisions_resized_crops(size: int) -> None:
    pixels = torch.randint(0, 256, (8, 24, 24, 3), dtype=torch.uint8, generator=generator())
    config = ViewsConfig(crop_min=0.1, colour_p=0, grey_p=0, blur_p=1.0)
    draws = draw(8, config, height=24, width=24, generator=generator())
    found = apply(to_float(pixels), draws, size=size)
    expected = []
    for image, box, flip, sigma in zip(to_float(pixels), draws.crop, draws.flip, draws.sigma, strict=True):
        view = tv.resized_crop(image, *box.tolist(), size=[size, size], antialias=True)
        view = tv.horizontal_flip(view) if flip else view
        expected.append(tv.gaussian_blur(view, [3, 3], [sigma.item()] * 2))
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)
    assert one_view(pixels, config, size=size).shape == (8, 3, size, size)


def test_the_blurs_reach_follows_the_views_size() -> None:
    """A tenth of the side: 1 pixel each way at 24, 3 at 64."""
    pixels = torch.zeros(1, 24, 24, 3, dtype=torch.uint8)
    pixels[:, 12] = 255
    draws = draw(1, ViewsConfig(**{**vars(OFF), "blur_p": 1.0}), height=24, width=24, generator=generator())
    for size, reach in ((24, 1), (64, 3)):
        sharp = apply(to_float(pixels), replace(draws, blurred=torch.tensor([False])), size=size)
        blurred = apply(to_float(pixels), replace(draws, sigma=torch.tensor([2.0])), size=size)
        widths = [int((views[0, 0, :, 0] > 1e-6).sum()) for views in (sharp, blurred)]
        assert widths[1] - widths[0] == 2 * reach


def test_views_differ_repeat_by_seed_and_stay_in_range() -> None:
    images = torch.randint(0, 256, (32, 16, 16, 3), dtype=torch.uint8, generator=generator())
    config = ViewsConfig(count=3, colour_strength=1.0, blur_p=0.5)
    views = random_views(images, config, generator(3))
    assert views.shape == (3, 32, 3, 16, 16)
    assert views.dtype == torch.float32
    assert torch.equal(views, random_views(images, config, generator(3)))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert ((views[first] - views[second]).abs().flatten(1).amax(dim=1) > 1e-3).all()
    assert views.min() >= 0
    assert views.max() <= 1 + 1e-6


def test_a_part_of_the_draws_makes_a_part_of_the_views() -> None:
    images = torch.randint(0, 256, (10, 12, 12, 3), dtype=torch.uint8, generator=generator())
    config = ViewsConfig(count=3, colour_strength=1.0, blur_p=0.5)
    draws = draw_all(10, config, height=12, width=12, generator=generator(3))
    part = slice(4, 9)
    found = apply_all(images[part], [one.rows(part) for one in draws], size=8)
    torch.testing.assert_close(found, random_views(images, config, generator(3), size=8)[:, part], atol=1e-6, rtol=0)


def test_every_tensor_is_where_the_images_are() -> None:
    """The meta device computes nothing, but refuses operations with tensors of another device."""
    images = torch.empty(6, 12, 12, 3, dtype=torch.uint8, device="meta")
    config = ViewsConfig(colour_p=0.9, grey_p=0.5, blur_p=0.9)
    views = random_views(images, config, generator(), size=20)
    assert views.shape == (2, 6, 3, 20, 20)
    assert views.device.type == "meta"


def test_other_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 8\).*\(N, H, W, 3\)"):
        one_view(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), OFF)
