"""`simclr export`: publish a checkpoint as a release, or with --probe-only a new probe on the encoder of a release."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.command_line.command import Command, main
from core.command_line.endings import conclude
from core.files.durable import publish_text
from core.files.json_text import json_text
from core.releases.manifest import Release
from core.releases.model_store import CHAMPION, ModelStore
from export.store.text import DEFAULT_STORE, typed

if TYPE_CHECKING:
    from export.formats.write import Int8

_DETAILS = """\
Examples:
  simclr export --name digits --checkpoint runs/digits/pretrain/checkpoint.safetensors \\
    --evaluation runs/digits/evaluation --data runs/digits/data
  simclr export --probe-only --name digits --parent champion --data runs/digits/data

A release that falls short of its champion is published, too, with the verdict and exit code 0: it is not promoted."""
_OF_A_CHECKPOINT = ("checkpoint", "evaluation", "int8_search", "no_int8")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(refuse=parser.error)
    parser.add_argument("--name", required=True, help="the release's name: STORE/NAME/VERSION/")
    parser.add_argument("--data", type=Path, required=True, help="data folder, whose real images judge the release")
    parser.add_argument("--store", type=Path, default=DEFAULT_STORE, help="default: %(default)s")
    parser.add_argument(
        "--parent",
        metavar="REF",
        help="the release that training started from, or whose encoder gets a new probe (then default: the champion): "
        "a version, alias or folder",
    )
    beside = parser.add_mutually_exclusive_group()
    beside.add_argument(
        "--champion",
        metavar="REF",
        help="the release to compare with: a version, alias or folder (default: the champion, if there is one)",
    )
    beside.add_argument("--no-champion", action="store_true", help="compare with none, as for the first of a name")
    parser.add_argument("--torchscript", action="store_true", help="an archive that runs TorchScript in place of ONNX")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="write there what --json prints")
    parser.add_argument("--json", action="store_true", help="print paths, digest and verdict as one line of JSON")
    trained = parser.add_argument_group("a checkpoint")
    trained.add_argument("--checkpoint", type=Path, help="checkpoint.safetensors of `simclr pretrain`")
    trained.add_argument("--evaluation", type=Path, help="folder that `simclr evaluate` wrote")
    int8 = trained.add_mutually_exclusive_group()
    int8.add_argument(
        "--int8-search", action="store_true", help="try every way to an int8 file that is good enough: takes minutes"
    )
    int8.add_argument("--no-int8", action="store_true", help="make no int8 file")
    probe = parser.add_argument_group("a new probe on the encoder of a release")
    probe.add_argument("--probe-only", action="store_true", help="fit a new probe, with the same embeddings bit by bit")
    probe.add_argument(
        "--embeddings", type=Path, metavar="FILE", help=".npy, float32 (N, D): the parent's of every image of --data"
    )


def _run(given: argparse.Namespace) -> int:
    _refuse_what_does_not_belong(given)
    from export.formats.parity import ParityError  # brings torch, which takes seconds to import
    from export.publishing.archive import ArchiveError, build_archive

    try:
        release, said = _with_new_probe(given) if given.probe_only else _of_checkpoint(given)
    except (ParityError, ValueError, OSError) as error:
        raise ValueError(f"nothing was published: {error}") from error
    try:
        archive = build_archive(release, given.store, torchscript=given.torchscript)
    except (ArchiveError, ValueError, OSError) as error:
        raise ValueError(f"release {release.folder} has no archive: {error}") from error
    _end(release, archive, said, given)
    return 0


def _refuse_what_does_not_belong(given: argparse.Namespace) -> None:
    """End with wrong usage if options of the one kind of release stand beside those of the other."""
    typed = [f"--{name.replace('_', '-')}" for name in _OF_A_CHECKPOINT if getattr(given, name)]
    if given.probe_only and typed:
        given.refuse(f"{' and '.join(typed)} can't go with --probe-only, which takes the encoder of a release as it is")
    if given.probe_only:
        return
    if given.embeddings is not None:
        given.refuse("--embeddings is for --probe-only")
    missing = [name for name in ("--checkpoint", "--evaluation") if name not in typed]
    if missing:
        given.refuse(f"{' and '.join(missing)} must be given, or --probe-only to go on from a release")


def _of_checkpoint(given: argparse.Namespace) -> tuple[Release, list[str]]:
    """The release of a checkpoint, and a line on each of its files."""
    from export.publishing.release import Ingredients, publish

    effort: Int8 = "none" if given.no_int8 else "search" if given.int8_search else "plain"
    release = publish(
        Ingredients(given.checkpoint, given.evaluation, given.data),
        given.name,
        given.store,
        int8=effort,
        champion=_champion(given),
        parent=_parent(given),
    )
    exact = [
        f"{form}: cosine at least {figures['cosine_least']:.7f}, numbers apart by at most "
        f"{figures['embedding_difference']:.1e} from the graph in PyTorch, on {figures['images']} images"
        for form, figures in release.manifest.parity.items()
    ]
    return release, [*exact, *(f"{form}: {_in_words(gate)}" for form, gate in release.manifest.gates.items())]


def _with_new_probe(given: argparse.Namespace) -> tuple[Release, list[str]]:
    """The release with a new probe, and a line on its accuracy."""
    import numpy as np

    from export.publishing.probe_only import publish_probe
    from training.data.dataset import Dataset

    champion = _champion(given)
    parent = _parent(given) or champion
    if parent is None:
        raise ValueError("there is no champion to take the encoder of: name a release with --parent")
    release = publish_probe(
        parent,
        Dataset.load(given.data),
        given.store,
        name=given.name,
        champion=champion,
        embeddings=np.load(given.embeddings, allow_pickle=False) if given.embeddings else None,
    )
    accuracy = release.manifest.metrics["linear_probe"]["accuracy"]
    count = len(release.manifest.classes or ())
    said = f"probe of {count} labels on the encoder of {parent.manifest.title}: right on {accuracy:.1%} of test images"
    return release, [said]


def _champion(given: argparse.Namespace) -> Release | None:
    """The release to compare with; raises `ManifestError` if it was asked for and is not there, or was altered."""
    from export.publishing.versions import champion_of, resolve

    if given.no_champion:
        return None
    return resolve(given.champion, given.store, given.name) if given.champion else champion_of(given.store, given.name)


def _parent(given: argparse.Namespace) -> Release | None:
    from export.publishing.versions import resolve

    return resolve(given.parent, given.store, given.name) if given.parent else None


def _in_words(gate: Mapping[str, Any]) -> str:
    """One line on an approximate file: what it reached, or why the release goes without it."""
    if not gate["passed"]:
        return f"left out: {'; '.join(gate['failed'])}{_untried(gate)}"
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


def _untried(gate: Mapping[str, Any]) -> str:
    """What was tried for an int8 file, and what was not."""
    if "tried" not in gate:
        return ""
    tried = f" (the best of {len(gate['tried'])} variants, {gate['variant']}"
    if not gate["costliest_layers"]:
        return f"{tried}; others take minutes to try: --int8-search)"
    costs = ", ".join(f"{name} ({cost:.1e})" for name, cost in [*gate["costliest_layers"].items()][:3])
    return f"{tried}; the layers that lose most cosine in int8: {costs})"


def _end(release: Release, archive: Path, said: Sequence[str], given: argparse.Namespace) -> None:
    """Write the summary, and say what was published, whether it may serve, and what to type next."""
    from export.publishing.verdict import PAGE

    page, promotion = release.folder / PAGE, release.manifest.promotion
    passed, failed = promotion.get("passed", True), promotion.get("failed", [])
    values = {
        "title": release.manifest.title,
        "digest": release.digest,
        "release": str(release.folder),
        "archive": str(archive),
        "comparison": str(page),
        "champion": promotion.get("champion"),
        "promotion": {"passed": passed, "failed": failed},
    }
    if given.summary is not None:
        publish_text(given.summary, json_text(values) + "\n")
    if not given.json:
        print(*said, f"release: {release.folder}, digest {release.digest[:16]}", sep="\n")
        print(f"archive for TorchServe: {archive}", f"comparison: {page}", sep="\n")
    conclude(_verdict(release), then=_next(release, given.store), as_json=given.json, **values)


def _verdict(release: Release) -> str:
    promotion = release.manifest.promotion
    champion = promotion.get("champion")
    beside = f"compared with the champion {champion}" if champion else "with no champion to compare it with"
    if promotion.get("passed", True):
        return f"{release.manifest.title} is published and may serve: {beside}, it passed every gate"
    reasons = "".join(f"\n  {reason}" for reason in promotion["failed"])
    return f"{release.manifest.title} is published, but may not serve: {beside}, it failed these gates{reasons}"


def _next(release: Release, root: Path) -> str:
    store, version = ModelStore(root, release.manifest.name), release.manifest.version
    if store.alias(CHAMPION) == version:
        return typed("serve", store=store)
    action = "promote" if release.manifest.promotion.get("passed", True) else "show"
    return typed("releases", action, version, store=store)


COMMAND = Command("export", "Publish an encoder as a release.", _add_arguments, _run, details=_DETAILS)

if __name__ == "__main__":  # retraining exports with it
    sys.exit(main(COMMAND))
