"""What a search looks for, as unit vectors: images, stored ids, vectors, or a mix of examples.

A mix is 2 * mean(positives) - mean(negatives) (without negatives the mean), of unit norm: near the positives, and
pushed away from what they have in common with the negatives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.images.decode import ImageError
from serving.inference.embedder import Embedded
from serving.operations.exchange import Exchange
from serving.protocol.messages import Failure, RequestError
from serving.protocol.operations import Example, SearchRequest

Vector = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Query:
    """A unit vector (D,), and the ids that can be no answer, because they are the question.

    `image` is the file that the vector is of, if it is one.
    """

    vector: Vector
    without: frozenset[str] = frozenset()
    image: bytes | None = None


def ids_of(one: Exchange[Any]) -> list[str]:
    """The stored ids whose embeddings the queries need."""
    if not isinstance(one.request, SearchRequest):
        return []
    return [*one.request.ids, *(example.id for example in one.request.examples if example.id is not None)]


def queries_of(one: Exchange[Any], stored: Mapping[str, Vector], *, dim: int) -> list[Query | Failure]:
    """Images first, then ids, then vectors, then the mix; `stored` has the embeddings of the ids that exist."""
    request = one.request
    images = len(request.images)
    found = [
        _query(_of_image(image), file=file) for image, file in zip(one.embedded[:images], request.images, strict=True)
    ]
    if not isinstance(request, SearchRequest):
        return found
    found += [_query(_of_id(name, stored), name) for name in request.ids]
    found += [_query(_unit(np.asarray(vector, np.float64), dim)) for vector in request.vectors]
    if request.positives:
        found.append(_mixed(request, one.embedded[images:], stored, dim=dim))
    return found


def _query(vector: Vector | Failure, *without: str, file: bytes | None = None) -> Query | Failure:
    return vector if isinstance(vector, ValueError) else Query(vector, frozenset(without), file)


def _mixed(
    request: SearchRequest, images: Sequence[Embedded], stored: Mapping[str, Vector], *, dim: int
) -> Query | Failure:
    """`images` has what became of the examples that are image files, in their order."""
    vectors: list[Vector] = []
    taken = 0
    for example in request.examples:
        vector = _of_image(images[taken]) if example.image is not None else _of_example(example, stored, dim)
        taken += example.image is not None
        if isinstance(vector, ValueError):
            return vector
        vectors.append(vector)
    stacked = np.stack(vectors).astype(np.float64)
    count = len(request.positives)
    centre: NDArray[np.float64] = stacked[:count].mean(axis=0)
    if request.negatives:
        centre = 2 * centre - stacked[count:].mean(axis=0)
    unit = _unit(centre, dim)
    if isinstance(unit, RequestError):
        return RequestError("positives and negatives cancel each other out: there is nothing left to look for")
    return _query(unit, *(example.id for example in request.examples if example.id is not None))


def _of_example(example: Example, stored: Mapping[str, Vector], dim: int) -> Vector | RequestError:
    if example.id is not None:
        return _of_id(example.id, stored)
    return _unit(np.asarray(example.vector, np.float64), dim)


def _of_image(image: Embedded) -> Vector | ImageError:
    return image if isinstance(image, ImageError) else image.embedding


def _of_id(name: str, stored: Mapping[str, Vector]) -> Vector | RequestError:
    return stored[name] if name in stored else RequestError(f"no item with id {name!r}", 404)


def _unit(vector: NDArray[np.float64], dim: int) -> Vector | RequestError:
    """Of any finite vector but 0, its direction: scaled by its largest number first, so that no square overflows."""
    if vector.shape != (dim,):
        return RequestError(f"a vector has {vector.size} numbers; the release has {dim}")
    largest = float(np.abs(vector).max(initial=0.0))
    if not np.isfinite(largest) or largest == 0.0:
        return RequestError(f"a vector has {largest} as its largest number; it must be finite and above 0")
    scaled = vector / largest
    return np.asarray(scaled / np.linalg.norm(scaled), np.float32)
