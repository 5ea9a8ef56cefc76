"""What the tests of the dialects share: a model, routes found as a server finds them, and answers of the engine."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.engine import Engine
from serving.gateway.dialects.model import ServedModel
from serving.gateway.dialects.route import DialectRoute, HttpRequest, Translation
from serving.protocol.messages import Answer, Failure
from serving.protocol.wire import Reply

Begun = tuple[DialectRoute, Translation | Reply]  # a route, and what it made of a request
MODEL = ServedModel("digits/7", "resnet18", dim=5, size=4, labels=("cat", "dog"), form="onnx", created=1_790_000_000)


def routed(routes: Sequence[DialectRoute], method: str, path: str) -> tuple[DialectRoute, dict[str, str]]:
    """The route of an address, and the parameters of its path."""
    for route in routes:
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route.path)
        if route.method == method and (found := re.fullmatch(pattern, path)):
            return route, found.groupdict()
    raise AssertionError(f"no route for {method} {path}")


def begun(
    routes: Sequence[DialectRoute],
    method: str,
    path: str,
    body: Any = b"",
    *,
    model: ServedModel | None = MODEL,
    headers: Mapping[str, str] | None = None,
) -> Begun:
    """What a dialect makes of a request; a body that is not bytes is sent as JSON."""
    route, parameters = routed(routes, method, path)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return route, route.begin(HttpRequest(content, parameters, headers or {}), model)


def asked_of(engine: Engine, begun: Begun) -> Reply:
    """The reply once the engine has answered, where it has to."""
    route, found = begun
    if isinstance(found, Reply):
        return found
    (answer,) = engine.answer([found.request])
    return route.finish(found, answer)


def translated(begun: Begun) -> Translation:
    """The translation of a request that is taken."""
    _, found = begun
    assert isinstance(found, Translation), found
    return found


def answered(begun: Begun, answer: Answer | Failure) -> Reply:
    """The reply that an answer becomes."""
    return begun[0].finish(translated(begun), answer)


def refused(begun: Begun) -> tuple[int, Any]:
    """Status and JSON of a reply that no worker was asked for."""
    _, found = begun
    assert isinstance(found, Reply), found
    return found.status, json.loads(found.body)


def embeddings(count: int, *, dim: int = 5, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors (count, dim), whose numbers are no short decimals."""
    drawn = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
