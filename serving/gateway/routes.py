"""Routes as values: a method, a path, and who answers. All of them are in one table, which OpenAPI shows.

A part of a path in braces takes any one segment, percent-encoded where it has a slash: `/items/{id}`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from serving.gateway.service import Endpoint
from serving.protocol.messages import Failure, RequestError
from serving.protocol.operations import Scope
from serving.protocol.wire import Reply, encode_error

COLLECTION = "collection"  # the part of a path that names one
DEFAULT_COLLECTION = "default"  # where the path names none


@dataclass(frozen=True)
class Route:
    """`method` and `path` are answered by `endpoint`, for keys that have at least `scope`; None needs no key.

    `refuse` writes its errors, also those that the gateway itself finds. `summary` is what OpenAPI says of it, with the
    schemas of `about`; a route that is not `listed` is not shown there.
    """

    method: str
    path: str
    endpoint: Endpoint
    scope: Scope | None = "read"
    summary: str = ""
    refuse: Callable[[Failure], Reply] = encode_error
    about: dict[str, Any] = field(default_factory=dict)
    listed: bool = True


class Table:
    """Finds the route of a request."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = list(routes)
        self._root: dict[str, Any] = {}
        for route in self.routes:
            node = self._root
            for segment in route.path.strip("/").split("/"):
                node = node.setdefault("{}" if segment.startswith("{") else segment, {})
            names = [one[1:-1] for one in route.path.strip("/").split("/") if one.startswith("{")]
            methods = node.setdefault("", {})
            if route.method in methods:
                raise ValueError(f"two routes for {route.method} {route.path}")
            methods[route.method] = (route, names)

    def find(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        """The route, and the parts of the path that it names. Raises `RequestError`: 404, or 405 for another method."""
        values: list[str] = []
        methods = _walk(self._root, raw_path.strip("/").split("/"), values)
        if methods is None:
            raise RequestError(f"there is nothing at {unquote(raw_path)}; GET /openapi.json lists what there is", 404)
        found = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
        if found is None:
            raise NotAllowed(method, unquote(raw_path), [*methods])
        route, names = found
        return route, dict(zip(names, values, strict=True))


class NotAllowed(RequestError):
    """The path is there, for other methods."""

    def __init__(self, method: str, path: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{path} does not answer {method}, but {', '.join(allowed)}", 405)
        self.allowed = allowed


def _walk(node: dict[str, Any], segments: Sequence[str], values: list[str]) -> dict[str, Any] | None:
    """The methods at a path; a segment that is named as it is goes before one in braces."""
    if not segments:
        methods: dict[str, Any] | None = node.get("")
        return methods
    first, *rest = segments
    if first and first in node and (found := _walk(node[first], rest, values)) is not None:
        return found
    if "{}" in node and first:
        values.append(unquote(first))
        if (found := _walk(node["{}"], rest, values)) is not None:
            return found
        values.pop()
    return None
