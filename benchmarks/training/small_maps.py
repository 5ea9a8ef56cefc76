"""What `training.model.small_maps` gains on this CPU: views a second with its convolutions and with PyTorch's, in turn.

    python -m benchmarks.training.small_maps [--architectures resnet50 resnet18] [--sizes 16 24 32] [--views 512]

The encoder alone, forward and backward, with the stem for small images on a CPU ("small_stride2"), in bf16 where the
CPU has the instructions. Prints a table and a last line of JSON. Views, head, loss and optimiser are not part of it.
"""

import argparse
import sys
import time

import torch

from benchmarks.tools.command import Figures, benchmark
from benchmarks.tools.turns import in_turn, medians
from core.command_line.command import main
from training.model.device import choose_precision
from training.model.encoder import Encoder, build_encoder, place
from training.model.small_maps import use_small_maps
from training.recipe.config import Architecture, EncoderConfig

CPU = torch.device("cpu")


def views_per_second(encoder: Encoder, size: int, views: int, *, precision: str) -> float:
    """One step on random pixels, after one to warm up."""
    pixels = torch.randn(views, 3, size, size).contiguous(memory_format=torch.channels_last)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            h = encoder(pixels)
        h.float().square().mean().backward()
        seconds = time.perf_counter() - start
    return views / seconds


def compare(architecture: Architecture, size: int, options: argparse.Namespace) -> dict[str, float]:
    """Median views a second, "plain" and "small_maps"."""
    config = EncoderConfig(architecture, "small_stride2", size, zero_init_residual=False)
    precision = choose_precision("auto", CPU, config)
    plain, ours = (place(build_encoder(config), CPU).train() for _ in range(2))
    use_small_maps(ours)

    def measure(encoder: Encoder) -> float:
        return views_per_second(encoder, size, options.views, precision=precision)

    turns = in_turn({"plain": lambda: measure(plain), "small_maps": lambda: measure(ours)}, options.repeat)
    return {name: round(rate, 1) for name, rate in medians(turns).items()}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--architectures", nargs="+", default=["resnet50", "resnet18"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[16, 24, 32], help="pixels (default: 16 24 32)")
    parser.add_argument("--views", type=int, default=512, help="in a step (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5)


def _measure(options: argparse.Namespace) -> Figures:
    torch.manual_seed(0)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{'views/s':<12}{'px':>5}{'plain':>10}{'small maps':>12}{'gain':>7}")
    for architecture in options.architectures:
        for size in options.sizes:
            rates = compare(architecture, size, options)
            figures.setdefault(architecture, {})[str(size)] = rates
            gain = rates["small_maps"] / rates["plain"]
            print(f"{architecture:<12}{size:>5}{rates['plain']:>10,.0f}{rates['small_maps']:>12,.0f}{gain:>6.2f}x")
    return {"views_per_s": figures}


COMMAND = benchmark("benchmarks.training.small_maps", __doc__, _add_arguments, _measure)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
