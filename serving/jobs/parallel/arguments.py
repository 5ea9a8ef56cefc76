"""The arguments of every command whose work is shared out: who embeds, with how many processes, as which task."""

import argparse

from core.command_line.values import positive
from serving.inference.choice import FORMS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --release, --form, --processes, --task-index and --task-count, and --json for how the work ended."""
    add = parser.add_argument
    add("--release", required=True, metavar="REF", help="the release: its folder, or name/version in model_store")
    add("--form", choices=FORMS, default="auto", help="which file of the release (default: what suits)")
    add("--processes", type=positive, help="worker processes (default: one a GPU, else one a core)")
    add("--task-index", type=int, help="which of several tasks this is (default: SLURM's or torchrun's)")
    add("--task-count", type=int, help="how many tasks there are")
    add("--json", action="store_true", help="print what came of it as JSON")
