"""What the commands that publish share: options, the list of pictures, the verdict in the manifest, archive, summary.

Left out: what they publish (`export.publishing.release`, `export.publishing.probe_only`), and the comparison itself
(`export.comparison`).
"""

import argparse
import json
from pathlib import Path

import msgspec
import numpy as np

from core.files.durable import publish_text
from core.releases.manifest import FILE_NAME, SEEN, Manifest, Release, entry_of, to_json
from export.comparison.compare import compare
from export.comparison.page import page
from export.publishing.archive import build_archive
from export.publishing.versions import champion_of, resolve
from training.data.dataset import Dataset

PAGE = "report/comparison.html"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that publishes a release, besides `--name`."""
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="default: %(default)s")
    parser.add_argument(
        "--summary", type=Path, help="file for a JSON with the paths of release and archive, and the verdict"
    )
    parser.add_argument(
        "--torchscript", action="store_true", help="a .mar that runs TorchScript; without it, ONNX as fits the machine"
    )
    parser.add_argument(
        "--parent", metavar="REF", help="the release that training started from: a version, alias or folder"
    )
    beside = parser.add_mutually_exclusive_group()
    beside.add_argument(
        "--champion",
        metavar="REF",
        help="the release to compare with: a version, alias or folder (the champion, if any)",
    )
    beside.add_argument("--no-champion", action="store_true", help="compare with no release: for the first of its kind")


def champion_asked(given: argparse.Namespace) -> Release | None:
    """The release to compare with; raises `ManifestError` or ValueError if the one asked for is not there."""
    if given.no_champion:
        return None
    return resolve(given.champion, given.store, given.name) if given.champion else champion_of(given.store, given.name)


def parent_asked(given: argparse.Namespace) -> Release | None:
    """The release that training started from; raises as `champion_asked`."""
    return resolve(given.parent, given.store, given.name) if given.parent else None


def write_seen(folder: Path, data: Dataset) -> None:
    """List which pictures a release learnt from, for the measure of drift; an older data folder can't tell."""
    contents = data.contents()
    if contents is not None:
        np.save(folder / SEEN, np.unique(contents))


def with_verdict(folder: Path, manifest: Manifest, champion: Release | None, data: Dataset) -> None:
    """Compare the release in `folder`, whose files `manifest` lists, and write page and manifest for good."""
    (folder / FILE_NAME).write_bytes(to_json(manifest))  # of a release that can be run, not yet of the one published
    found = compare(Release(folder), champion, data)
    (folder / PAGE).parent.mkdir(exist_ok=True)
    (folder / PAGE).write_text(page(found), encoding="utf-8")
    files = {**manifest.files, PAGE: entry_of(folder / PAGE)}
    whole = msgspec.structs.replace(manifest, files=dict(sorted(files.items())), promotion=found.to_json())
    (folder / FILE_NAME).write_bytes(to_json(whole))


def finish(release: Release, given: argparse.Namespace) -> Path:
    """Build the archive, write the summary, and say what was published and whether it may serve."""
    archive = build_archive(release, given.store, torchscript=given.torchscript)
    promotion = release.manifest.promotion
    verdict = {"passed": promotion.get("passed", True), "failed": promotion.get("failed", [])}
    if given.summary is not None:
        paths = {"release": str(release.folder), "archive": str(archive)}
        publish_text(given.summary, json.dumps(paths | {"promotion": verdict}) + "\n")
    print(f"release {release.manifest.title}, digest {release.digest[:16]}: {release.folder}")
    print(f"archive for TorchServe: {archive}")
    beside = f"beside {promotion['champion']}" if promotion.get("champion") else "with no champion to compare with"
    if verdict["passed"]:
        print(f"promotion: every gate passed, {beside}")
    else:
        print(f"promotion: REFUSED, {beside}: published, but not to serve")
        print("\n".join(f"  {reason}" for reason in verdict["failed"]))
    print(f"comparison: {release.folder / PAGE}")
    return archive
