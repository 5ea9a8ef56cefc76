"""Ours and lightly's parts on the same machine, architecture and images, for the same time: speed and accuracy.

    python -m benchmarks.training.training --minutes 15 --images PATH       each side's own recipe
    python -m benchmarks.training.training --equal --images PATH            equal settings: images a second only

Both sides train on train and validation images, without labels; making views counts, evaluation does not. Writes
results as they come to --out (the same command goes on where it stopped), a picture of the accuracy over time, and
prints a table and a last line of JSON. "random_init" is an encoder with random weights, and what training has to
beat. On a CPU both compute in bf16 where it has the instructions, else in fp32. The peer is not tuned.
"""

import argparse
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.tools.command import Figures, benchmark
from benchmarks.tools.images import add_image_arguments, open_images
from benchmarks.tools.turns import medians
from benchmarks.training.accuracy_picture import accuracy_over_time
from benchmarks.training.equal_settings import compare_speed, equal_config
from benchmarks.training.peer import OPTIMISERS, check_batch
from benchmarks.training.recipes import Comparison, PeerRecipe, Result, score_untrained, train_lightly, train_ours
from benchmarks.training.scores import choose_rows
from core.command_line.command import main
from core.files.durable import publish_text
from training.data.dataset import Dataset
from training.model.device import choose_device
from training.recipe.config import PretrainConfig, override, to_dict
from training.recipe.presets import preset
from training.run.run import training_rows

REQUEST, RESULTS, PICTURE = "request.json", "results.json", "accuracy.png"


def compare_recipes(data: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score both sides; returns the figures of the last line, also in results.json."""
    recipe = _recipe(data, options)
    _check(data, options)
    _check_same(options.out, recipe, data, options)
    rows = choose_rows(data, options.probe_images)
    comparison = Comparison(data, 60 * options.minutes, options.out, options.device, rows)
    ours = train_ours(comparison, recipe)
    same_time = replace(comparison, seconds=ours["seconds"])
    peer = PeerRecipe(options.peer_batch, options.peer_optimiser, options.workers)
    encoder = replace(recipe.encoder, image_size=data.image_size)
    sides = {"ours": ours, "lightly": train_lightly(same_time, encoder, peer)}
    untrained = score_untrained(comparison, encoder)
    print(_table(sides, untrained))
    accuracy_over_time(sides, untrained, options.out / PICTURE)
    figures = _figures(sides, untrained)
    publish_text(options.out / RESULTS, json.dumps(figures, indent=1))
    return figures


def compare_equal(data: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Both sides' speed at equal settings; returns the figures of the last line."""
    config = equal_config(_recipe(data, options).encoder, options.peer_batch)
    device = options.device
    turns = compare_speed(
        config, data, seconds=options.equal_seconds, repeats=options.repeat, workers=options.workers, device=device
    )
    rates = medians(turns)
    for name, values in turns.items():
        print(f"{name:<10}{rates[name]:>10.1f} images/s   turns: {', '.join(f'{value:.1f}' for value in values)}")
    print(f"ours is {rates['ours'] / rates['lightly']:.2f} times as fast at equal settings")
    return {"images_per_s": rates, "turns": turns}


def _recipe(data: Dataset, options: argparse.Namespace) -> PretrainConfig:
    recipe = preset(options.preset, images=len(training_rows(data)), image_size=data.image_size)
    pairs = [change.partition("=") for change in options.set]
    if malformed := [key for key, equals, _ in pairs if not equals]:
        raise ValueError(f"--set is {malformed[0]!r}; KEY=VALUE is needed")
    return override(recipe, {key: value for key, _, value in pairs} | {"encoder.image_size": data.image_size})


def _check(data: Dataset, options: argparse.Namespace) -> None:
    """Refuse what would fail only once our side has trained."""
    check_batch(data, options.peer_batch)
    if not 0 < options.minutes < math.inf:
        raise ValueError(f"minutes is {options.minutes:g}; it must be above 0, and finite")
    if options.probe_images < 0:
        raise ValueError(f"probe-images is {options.probe_images}; accepted: 0 (all) and more")


def _check_same(out: Path, recipe: PretrainConfig, data: Dataset, options: argparse.Namespace) -> None:
    """Refuse a folder that holds another comparison, part of which would be taken for this one."""
    names = ("minutes", "device", "peer_batch", "peer_optimiser", "workers", "probe_images")
    asked = {name: getattr(options, name) for name in names} | {"data": data.digest, "recipe": to_dict(recipe)}
    text = json.dumps(asked, indent=1)
    path = out / REQUEST
    if path.exists() and path.read_text() != text:
        raise ValueError(f"{out} holds another comparison (see {path}); choose another --out")
    publish_text(path, text)


def _figures(sides: dict[str, Result], untrained: dict[str, Result]) -> dict[str, Any]:
    everyone = sides | untrained
    figures: dict[str, Any] = {
        key: {name: round(side[key], digits) for name, side in sides.items()}
        for key, digits in (("images_per_s", 2), ("images", 0), ("seconds", 1), ("views_share", 4))
    }
    for key in ("linear_accuracy", "knn_accuracy"):
        figures[key] = {name: round(side[key], 4) for name, side in everyone.items()}
    return figures | {"curve": sides["ours"]["curve"]}


def _table(sides: dict[str, Result], untrained: dict[str, Result]) -> str:
    lines = [f"{'':<28}{'images/s':>9}{'images':>10}{'minutes':>9}{'views':>8}{'linear':>9}{'kNN':>9}"]
    for name, side in sides.items():
        rate, minutes = side["images_per_s"], side["seconds"] / 60
        training = f"{rate:>9.1f}{side['images']:>10,}{minutes:>9.1f}{side['views_share']:>8.1%}"
        lines.append(f"{name:<28}{training}{side['linear_accuracy']:>9.1%}{side['knn_accuracy']:>9.1%}")
    for name, side in untrained.items():
        label = name.replace("_", " ")
        lines.append(f"{label:<28}{'':<36}{side['linear_accuracy']:>9.1%}{side['knn_accuracy']:>9.1%}")
    return "\n".join(lines)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--minutes", type=float, help="of training, for each side's own recipe")
    which.add_argument("--equal", action="store_true", help="compare the speed at equal settings instead")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/training"), help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N")
    parser.add_argument("--preset", default="cifar10_cpu", help="our recipe (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="sets any key of our recipe")
    parser.add_argument("--peer-batch", type=int, default=256, help="lightly's batch, and with --equal both sides'")
    parser.add_argument("--peer-optimiser", choices=OPTIMISERS, default="example", help="of lightly's repository")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="making lightly's views")
    parser.add_argument("--probe-images", type=int, default=10_000, help="training images scored with; 0 is all")
    parser.add_argument("--repeat", type=int, default=2, help="turns of each side, with --equal")
    parser.add_argument("--equal-seconds", type=float, default=60, help="seconds of each turn, with --equal")


def _measure(options: argparse.Namespace) -> Figures:
    options.out.mkdir(parents=True, exist_ok=True)
    options.device = str(choose_device(options.device))
    data = open_images(options, options.out)
    return compare_equal(data, options) if options.equal else compare_recipes(data, options)


_RESUME = "what is finished is kept, and the same command goes on from there"
COMMAND = benchmark("benchmarks.training.training", __doc__, _add_arguments, _measure, resume=_RESUME)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
