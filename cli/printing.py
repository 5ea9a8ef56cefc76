"""What the client's command line prints: results as lines or as JSON, and near-duplicates as groups."""

import json
from collections.abc import Iterable, Sequence
from typing import Any


def show(names: Sequence[object], results: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Each result under the name of what it is of."""
    if as_json:
        print(json.dumps(results, indent=2))
        return
    for name, result in zip(names, results, strict=True):
        print(f"{name}")
        for line in _lines(result):
            print(f"  {line}")


def lines_of_item(item: dict[str, Any]) -> str:
    """An item of a list on one line."""
    metadata = json.dumps(item["metadata"]) if item["metadata"] else ""
    return "  ".join(filter(None, [item["id"], item["label"], metadata]))


def groups_of(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Who is paired, directly or through others, is in one group; groups and members in order of appearance."""
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
    metadata = json.dumps(one["metadata"]) if one.get("metadata") else ""
    return f"{one['score']:.4f}  {one['id']}  {one['label'] or ''}  {metadata}".rstrip()


def _vote(vote: dict[str, Any] | None) -> str:
    return f"neighbours say {vote['label']} ({vote['share']:.1%})" if vote else "no neighbour has a label"
