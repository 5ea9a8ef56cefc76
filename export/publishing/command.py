"""`simclr export`: publish a checkpoint as a release with its archive."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.releases.manifest import ManifestError
from export.formats.parity import ParityError
from export.publishing.archive import ArchiveError
from export.publishing.finishing import add_options, champion_asked, finish, parent_asked
from export.publishing.release import Ingredients, publish
from training.run.checkpoint import CheckpointError


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m export.publishing.command",
        description="Export a checkpoint and publish it as a release with its .mar.",
    )
    parser.add_argument("--name", required=True, help="the release's name: model_store/<name>/<version>/")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="checkpoint.safetensors of training.run.pretrain"
    )
    parser.add_argument("--evaluation", type=Path, required=True, help="folder that training.evaluation.evaluate wrote")
    parser.add_argument("--data", type=Path, required=True, help="data folder, for the parity check's real images")
    add_options(parser)
    parser.add_argument("--no-int8", action="store_true", help="leave out int8, which takes longest")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code. 0 also for a release that the gates refuse: it is published."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    given = _arguments(arguments)
    try:
        release = publish(
            Ingredients(given.checkpoint, given.evaluation, given.data),
            given.name,
            given.store,
            int8=not given.no_int8,
            champion=champion_asked(given),
            parent=parent_asked(given),
        )
    except (ParityError, CheckpointError, ManifestError, ValueError, OSError) as error:
        print(f"error: nothing was published: {error}", file=sys.stderr)
        return 1
    for form, figures in release.manifest.parity.items():
        print(
            f"{form}: least cosine {figures['cosine_least']:.7f}, largest difference "
            f"{figures['embedding_difference']:.1e} against the eager graph on {figures['images']} images"
        )
    for form, gate in release.manifest.gates.items():
        print(f"{form}: {_in_words(gate)}")
    try:
        finish(release, given)
    except (ArchiveError, ManifestError, OSError) as error:
        print(f"error: release {release.folder} has no archive: {error}", file=sys.stderr)
        return 1
    return 0


def _in_words(gate: Mapping[str, Any]) -> str:
    """One line on an approximate format: what it reached, or why it was left out."""
    if not gate["passed"]:
        return f"left out: {'; '.join(gate['failed'])}"
    figures = gate["figures"]
    parts = [f"mean cosine {figures['cosine_mean']:.5f}", f"least {figures['cosine_least']:.5f}"]
    if "neighbours_same" in figures:
        parts.append(f"{figures['neighbours_same']:.1%} of the ten nearest the same")
    parts += [
        f"{name} {100 * figures[f'{name}_before']:.1f}% before, {100 * figures[f'{name}_after']:.1f}% after"
        for name in ("knn", "probe")
        if f"{name}_after" in figures
    ]
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
