"""What both ways to publish share: which pictures were seen, the verdict in the manifest, archive, summary, ending."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from core.command_line.endings import conclude
from core.files.durable import publish_text
from core.releases.manifest import FILE_NAME, SEEN, Manifest, ManifestError, Release, entry_of, to_json
from core.releases.model_store import CHAMPION, ModelStore
from export.comparison.compare import compare
from export.comparison.page import page
from export.publishing.archive import ArchiveError, build_archive
from export.store.showing import typed
from training.data.dataset import Dataset

PAGE = "report/comparison.html"


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


def finish(release: Release, store: Path, *, torchscript: bool, summary: Path | None, as_json: bool) -> None:
    """Build the archive, write the summary, and say what was published, whether it may serve, and what comes next.

    Raises ValueError if there is no archive to be had: the release is there then, and exporting it again builds it.
    """
    try:
        archive = build_archive(release, store, torchscript=torchscript)
    except (ArchiveError, ManifestError, OSError) as error:
        raise ValueError(f"release {release.folder} has no archive: {error}") from error
    values = _values(release, archive)
    if summary is not None:
        publish_text(summary, json.dumps(values) + "\n")
    if not as_json:
        print(f"release: {release.folder}, digest {release.digest[:16]}")
        print(f"archive for TorchServe: {archive}")
        print(f"comparison: {release.folder / PAGE}")
    conclude(_verdict(values), then=_next(release, store), as_json=as_json, **values)


def _values(release: Release, archive: Path) -> dict[str, Any]:
    promotion = release.manifest.promotion
    return {
        "title": release.manifest.title,
        "digest": release.digest,
        "release": str(release.folder),
        "archive": str(archive),
        "comparison": str(release.folder / PAGE),
        "champion": promotion.get("champion"),
        "promotion": {"passed": promotion.get("passed", True), "failed": promotion.get("failed", [])},
    }


def _verdict(values: Mapping[str, Any]) -> str:
    title, champion, failed = values["title"], values["champion"], values["promotion"]["failed"]
    beside = f"compared with the champion {champion}" if champion else "with no champion to compare it with"
    if values["promotion"]["passed"]:
        return f"{title} is published and may serve: {beside}, it passed every gate"
    reasons = "".join(f"\n  {reason}" for reason in failed)
    return f"{title} is published, but REFUSED for serving: {beside}, it failed these gates{reasons}"


def _next(release: Release, store: Path) -> str:
    of_name, version = ModelStore(store, release.manifest.name), release.manifest.version
    if of_name.alias(CHAMPION) == version:
        return typed("serve", store=of_name)
    action = "promote" if release.manifest.promotion.get("passed", True) else "show"
    return typed("releases", action, version, store=of_name)
