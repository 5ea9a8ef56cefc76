"""The function that answers each operation, once images are embedded and neighbours found.

Writes are not here: those of a batch share a transaction (`serving.operations.writing`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.images.decode import ImageError
from serving.collection.drift.drift import drift
from serving.inference.runtime import Outputs
from serving.operations.duplicates import duplicates
from serving.operations.exchange import Exchange
from serving.operations.facets import facets
from serving.operations.opened import OpenCollection
from serving.operations.sample import sample
from serving.operations.served import Served
from serving.operations.showing import get, list_items
from serving.operations.snapshots import list_snapshots, remove, restore, save
from serving.protocol.messages import Answer
from serving.protocol.operations import (
    ClassifyRequest,
    CountRequest,
    DescribeRequest,
    DuplicatesRequest,
    EmbedRequest,
    FacetsRequest,
    GetRequest,
    ListRequest,
    RemoveSnapshotRequest,
    Request,
    RestoreRequest,
    SampleRequest,
    SearchRequest,
    SnapshotRequest,
    SnapshotsRequest,
    StatsRequest,
)


def _embed(served: Served, one: Exchange[EmbedRequest]) -> Answer:
    logits = "logits" in one.request.include
    results = [image if isinstance(image, ImageError) else _embedded(image, logits=logits) for image in one.embedded]
    return Answer(served.title, results, one.request.encoding_format, served.medians)


def _embedded(image: Outputs, *, logits: bool) -> dict[str, Any]:
    return {"embedding": image.embedding} | ({"logits": image.logits} if logits else {})


def _classify(served: Served, one: Exchange[ClassifyRequest]) -> Answer:
    assert served.classes is not None, "else it was refused"
    results = [image if isinstance(image, ImageError) else _classified(image, served.classes) for image in one.embedded]
    for result, found in zip(results, one.found, strict=bool(one.found)):
        if isinstance(result, dict):
            result["vote"] = found["vote"] if isinstance(found, dict) else None
    return Answer(served.title, results)


def _classified(image: Outputs, classes: tuple[str, ...]) -> dict[str, Any]:
    assert image.logits is not None, "a release with classes has a probe"
    probabilities = _softmax(image.logits)
    best = int(probabilities.argmax())
    return {
        "label": classes[best],
        "probability": float(probabilities[best]),
        "probabilities": dict(zip(classes, map(float, probabilities), strict=True)),
    }


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    return np.asarray(shifted / shifted.sum())


def _search(served: Served, one: Exchange[SearchRequest]) -> Answer:
    return Answer(served.title, one.found)


def _describe(served: Served, one: Exchange[DescribeRequest]) -> Answer:
    return Answer(served.title, more=served.describe())


def _get(served: Served, one: Exchange[GetRequest]) -> Answer:
    assert served.collection is not None
    return Answer(served.title, get(served.collection, one.request))


def _stats(served: Served, one: Exchange[StatsRequest]) -> Answer:
    assert served.collection is not None
    more = served.collection.stats()
    if "drift" in one.request.include:
        more["drift"] = drift(served.collection.catalogue, served.reference).to_json()
    return Answer(served.title, more=more)


def _count(collection: OpenCollection, one: Exchange[CountRequest]) -> dict[str, Any]:
    return {"count": collection.catalogue.items.count(one.selection)}


def _as_a_whole(function: Callable[[OpenCollection, Exchange[Any]], dict[str, Any]]) -> "Answering":
    """An answer that is all of what `function` says of the collection."""

    def answer(served: Served, one: Exchange[Any]) -> Answer:
        assert served.collection is not None, "else it was refused"
        return Answer(served.title, more=function(served.collection, one))

    return answer


Answering = Callable[[Served, Exchange[Any]], Answer]
ANSWERS: Mapping[type[Request], Answering] = {
    EmbedRequest: _embed,
    ClassifyRequest: _classify,
    SearchRequest: _search,
    DescribeRequest: _describe,
    GetRequest: _get,
    ListRequest: _as_a_whole(list_items),
    CountRequest: _as_a_whole(_count),
    FacetsRequest: _as_a_whole(facets),
    SampleRequest: _as_a_whole(sample),
    StatsRequest: _stats,
    DuplicatesRequest: _as_a_whole(duplicates),
    SnapshotRequest: _as_a_whole(save),
    SnapshotsRequest: _as_a_whole(list_snapshots),
    RestoreRequest: _as_a_whole(restore),
    RemoveSnapshotRequest: _as_a_whole(remove),
}
