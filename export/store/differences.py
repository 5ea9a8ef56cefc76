"""How two releases differ: configuration, data, figures, files, libraries."""

from collections.abc import Mapping
from typing import Any

from core.releases.manifest import Manifest, Release
from export.store.records import flat, number_at

_OF_THE_WHOLE = ("architecture", "embedding_dim", "classes", "schema")


def differences(one: Release, other: Release) -> dict[str, Any]:
    """What differs, part by part; each entry has both sides, with None for what one lacks.

    `metrics` has every number of either, even if it is the same, and as `difference` other minus one.
    """
    first, second = one.manifest, other.manifest
    return {
        "releases": [first.title, second.title],
        "same_space": one.space == other.space,
        "release": _changed(_whole(first), _whole(second)),
        "config": _changed(*(manifest.lineage.get("config") or {} for manifest in (first, second))),
        "data": _changed(*(manifest.lineage.get("data") or {} for manifest in (first, second))),
        "metrics": _numbers(first.metrics, second.metrics),
        "files": _changed(*({name: entry.sha256 for name, entry in side.files.items()} for side in (first, second))),
        "libraries": _changed(*(_libraries(manifest) for manifest in (first, second))),
    }


def _whole(manifest: Manifest) -> dict[str, Any]:
    said = {name: getattr(manifest, name) for name in _OF_THE_WHOLE} | {"image_size": manifest.input.size}
    return said | {"git": manifest.lineage.get("git"), "formats": sorted(manifest.parity)}


def _libraries(manifest: Manifest) -> dict[str, Any]:
    return {**(manifest.lineage.get("libraries") or {}), "python": manifest.lineage.get("python")}


def _changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    first, second = dict(flat(one)), dict(flat(other))
    keys = [*first, *(key for key in second if key not in first)]
    return {key: [first.get(key), second.get(key)] for key in keys if first.get(key) != second.get(key)}


def _numbers(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    first, second = dict(flat(one)), dict(flat(other))
    found = {}
    for key in [*first, *(key for key in second if key not in first)]:
        left, right = number_at(first, key), number_at(second, key)
        if left is not None or right is not None:
            difference = right - left if left is not None and right is not None else None
            found[key] = {"one": left, "other": right, "difference": difference}
    return found
