"""Each operation against torchvision at the same factor, and the draws against torchvision's distributions."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp, kstest
from torch import Tensor
from torchvision.transforms import ColorJitter, RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from training import colour
from training.config import ViewsConfig
from training.pixels import to_float
from training.views import apply, blur_matrix, draw, random_view, resize_matrix, two_views

OFF = ViewsConfig(crop_min=1.0, crop_max=1.0, flip_p=0, colour_p=0, grey_p=0, blur_p=0)
DRAWS = 4000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    blank = torch.empty(3, 32, 32)
    theirs = np.array([RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(DRAWS)])
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    assert ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 1e-3
    assert ks_2samp(ours[:, 3] / ours[:, 2], theirs[:, 3] / theirs[:, 2]).pvalue > 1e-3
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= 32).all()


def test_factors_are_distributed_as_torchvisions() -> None:
    s = 0.5
    ours = draw(DRAWS, ViewsConfig(colour_strength=s), height=8, width=8, generator=generator())
    jitter = ColorJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s)
    torch.manual_seed(1)
    params = [
        jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in range(DRAWS)
    ]
    for column in range(4):
        theirs = np.array([p[1 + column] for p in params])
        assert ks_2samp(ours.factors[:, column].numpy(), theirs).pvalue > 1e-3
    assert kstest(ours.sigma.numpy(), "uniform", args=(0.1, 1.9)).pvalue > 1e-3


def test_every_order_of_the_colours_is_as_likely_and_images_draw_alone() -> None:
    draws = draw(DRAWS, ViewsConfig(), height=8, width=8, generator=generator())
    codes = (draws.order * torch.tensor([64, 16, 4, 1])).sum(dim=1).numpy()
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == math.factorial(4)
    assert chisquare(counts).pvalue > 1e-3
    neighbours = np.corrcoef(draws.factors[:-1, 0], draws.factors[1:, 0])[0, 1]
    assert abs(neighbours) < 4 / math.sqrt(DRAWS)


@pytest.mark.parametrize("name", ["flip", "colour", "grey", "blur"])
def test_probabilities(name: str) -> None:
    field = {"flip": "flip", "colour": "coloured", "grey": "greyed", "blur": "blurred"}[name]
    for p in (0.0, 0.3, 1.0):
        config = ViewsConfig(**{f"{name}_p": p})
        share = getattr(draw(DRAWS, config, height=8, width=8, generator=generator()), field).float().mean().item()
        assert abs(share - p) <= 4 * math.sqrt(p * (1 - p) / DRAWS)


def test_with_everything_off_the_view_is_the_image() -> None:
    images = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8, generator=generator())
    torch.testing.assert_close(random_view(images, OFF, generator()), to_float(images), atol=1e-6, rtol=0)


def test_each_switch_does_its_own_thing_to_every_image() -> None:
    pixels = torch.randint(0, 256, (6, 20, 20, 3), dtype=torch.uint8, generator=generator())
    images = to_float(pixels)
    flipped = random_view(pixels, ViewsConfig(**{**vars(OFF), "flip_p": 1.0}), generator())
    torch.testing.assert_close(flipped, images.flip(3), atol=1e-6, rtol=0)
    greyed = random_view(pixels, ViewsConfig(**{**vars(OFF), "grey_p": 1.0}), generator())
    torch.testing.assert_close(greyed, tv.rgb_to_grayscale(images, 3), atol=1e-6, rtol=0)
    config = ViewsConfig(**{**vars(OFF), "blur_p": 1.0})
    sigma = draw(6, config, height=20, width=20, generator=generator()).sigma
    blurred = random_view(pixels, config, generator())
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


def test_two_views_differ_repeat_by_seed_and_stay_in_range() -> None:
    images = torch.randint(0, 256, (32, 16, 16, 3), dtype=torch.uint8, generator=generator())
    config = ViewsConfig(colour_strength=1.0, blur_p=0.5)
    first, second = two_views(images, config, generator(3))
    again, _ = two_views(images, config, generator(3))
    assert first.shape == second.shape == (32, 3, 16, 16)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert ((first - second).abs().flatten(1).amax(dim=1) > 1e-3).all()
    assert first.min() >= 0
    assert first.max() <= 1 + 1e-6


def test_other_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 8\).*\(N, H, W, 3\)"):
        random_view(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), OFF, generator())
