"""The verdict on a new release, its last parts: the comparison's page, and the manifest that ends with the verdict."""

from pathlib import Path

import msgspec

from core.releases.manifest import FILE_NAME, Manifest, Release, entry_of, to_json
from export.comparison.compare import compare
from export.comparison.page import page
from training.data.dataset import Dataset

PAGE = "report/comparison.html"


def with_verdict(folder: Path, manifest: Manifest, champion: Release | None, data: Dataset) -> None:
    """Compare the release in `folder`, whose files `manifest` lists, and write page and manifest for good."""
    (folder / FILE_NAME).write_bytes(to_json(manifest))  # of a release that can be run, not yet of the one published
    found = compare(Release(folder), champion, data)
    (folder / PAGE).parent.mkdir(exist_ok=True)
    (folder / PAGE).write_text(page(found), encoding="utf-8")
    files = {**manifest.files, PAGE: entry_of(folder / PAGE)}
    whole = msgspec.structs.replace(manifest, files=dict(sorted(files.items())), promotion=found.to_json())
    (folder / FILE_NAME).write_bytes(to_json(whole))
