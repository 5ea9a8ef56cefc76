"""Routes as values: a method, a path, and who answers. All of them are in one table, which OpenAPI shows.

A part of a path in braces takes any one segment, percent-encoded where it has a slash: `/items/{id}`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from serving.gateway.service import Endpoint
from serving.protocol.messages import Failure, RequestError
from serving.protocol.operations import Scope
from serving.protocol.wire import Reply, encode_error

COLLECTION = "collection"  # the part of a path that names one


@dataclass(frozen=True)
class Route:
    """`method` and `path` are answered by `endpoint`, for keys that have at least `scope`; None needs no key.

    `refuse` writes its errors, also those that the gateway itself finds. `summary` is what OpenAPI says of it,
    with the types of the JSON that it may reply, where the endpoint does not tell them, and what is `about` it besides,
    as OpenAPI has it. A route that is not `listed` is not shown there.
    """

    method: str
    path: str
    endpoint: Endpoint
    scope: Scope | None = "read"
    summary: str = ""
    refuse: Callable[[Failure], Reply] = encode_error
    replies: tuple[type, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
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
        """The route, and the parts of the path that it names. Raises `RequestError`: 404, or 405 for another method.

        OPTIONS is never found: what it asks for is the `allowed` of `NotAllowed`.
        """
        allowed: set[str] = set()
        for methods, values in _matches(self._root, raw_path.strip("/").split("/"), ()):
            if found := methods.get(method) or (methods.get("GET") if method == "HEAD" else None):
                route, names = found
                return route, dict(zip(names, map(_text, values), strict=True))
            allowed |= methods.keys()
        if not allowed:
            raise RequestError(f"there is nothing at {unquote(raw_path)}; GET /openapi.json lists what there is", 404)
        raise NotAllowed(method, unquote(raw_path), allowed)


class NotAllowed(RequestError):
    """The path is there, for other methods."""

    def __init__(self, method: str, path: str, allowed: Iterable[str]) -> None:
        self.allowed = sorted({*allowed, "OPTIONS"} | ({"HEAD"} if "GET" in allowed else set()))
        super().__init__(f"{path} does not answer {method}, but {', '.join(self.allowed)}", 405)


def _matches(
    node: dict[str, Any], segments: Sequence[str], values: tuple[str, ...]
) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """The methods at a path, with what its parts in braces are; segments that are named as they are go first.

    An item may have the name of such a segment: `GET /items/get` is the item "get", as only POST asks `/items/get`.
    """
    if not segments:
        if "" in node:
            yield node[""], values
        return
    first, *rest = segments
    if first and first in node:
        yield from _matches(node[first], rest, values)
    if first and "{}" in node:
        yield from _matches(node["{}"], rest, (*values, first))


def _text(segment: str) -> str:
    """What a segment says. Raises `RequestError` (400) where its percent-encoding is not of UTF-8."""
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError as error:
        raise RequestError(f"{segment!r:.80} in the path is not UTF-8 in percent-encoding") from error
