"""What the commands that ask a server print: results as lines or as JSON, and near-duplicates as groups."""

from collections.abc import Iterable, Sequence
from typing import Any

from core.command_line.endings import counted
from core.files.json_text import json_text


def print_json(value: Any, *, indent: int | None = 2) -> int:
    """Print a value as JSON; returns the exit code."""
    print(json_text(value, indent=indent))
    return 0


def print_results(names: Sequence[object], results: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print each result under the name of the image or item that it belongs to."""
    if as_json:
        print_json(results)
        return
    for name, result in zip(names, results, strict=True):
        print(name)
        for line in _lines(result):
            print(f"  {line}")


def line_of_item(item: dict[str, Any]) -> str:
    """An item on one line."""
    metadata = json_text(item["metadata"]) if item["metadata"] else ""
    return "  ".join(filter(None, [item["id"], item["label"], metadata]))


def print_facet(key: str, values: Sequence[dict[str, Any]], *, distinct: int, missing: int) -> None:
    """Print a key's values, each with the number of its items, under what there is in all."""
    without = f"; {counted(missing, 'item has', 'items have')} none" if missing else ""
    print(f"{key}: {counted(distinct, 'value')}{without}")
    for one in values:
        shown = one["value"] if isinstance(one["value"], str) else json_text(one["value"])
        print(f"{one['count']:>9,}  {shown}")


def groups_of(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Names that are paired, directly or through others, form a group; all in order of first appearance."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = parent[above]
            name = above
        return name

    for one, other in pairs:
        parent[root(other)] = root(one)
    groups: dict[str, list[str]] = {}
    for name in parent:
        groups.setdefault(root(name), []).append(name)
    return list(groups.values())


def _lines(result: dict[str, Any]) -> list[str]:
    if "error" in result:
        return [f"error {result['error']['status']}: {result['error']['message']}"]
    if "outcome" in result:
        return [result["outcome"]]
    voted = [_vote(result["vote"])] if "vote" in result else []
    if "neighbours" in result:
        return [*map(_neighbour, result["neighbours"]), *voted]
    return [f"{result['label']}  ({result['probability']:.1%})", *voted]


def _neighbour(one: dict[str, Any]) -> str:
    metadata = json_text(one["metadata"]) if one.get("metadata") else ""
    return f"{one['score']:.4f}  {one['id']}  {one['label'] or ''}  {metadata}".rstrip()


def _vote(vote: dict[str, Any] | None) -> str:
    return f"neighbours say {vote['label']} ({vote['share']:.1%})" if vote else "no neighbour has a label"
