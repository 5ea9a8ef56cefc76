"""What a search looks for, as unit vectors: images, stored ids, vectors, or a mix of examples.

A mix is 2 * mean(positives) - mean(negatives) (without negatives the mean), of unit norm: near the positives, and
pushed away from what they have in common with the negatives.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.images.decode import ImageError
from serving.inference.embedder import Embedded
from serving.protocol.messages import Failure, Mix, Request, RequestError

Vector = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Query:
    """A unit vector (D,), and the ids that are no answer because they are the question."""

    vector: Vector
    without: frozenset[str] = frozenset()


def ids_of(request: Request) -> list[str]:
    """The stored ids whose embeddings the queries need."""
    examples = request.mix.examples if request.mix is not None else ()
    return [*request.ids, *(example for example in examples if isinstance(example, str))]


def queries_of(
    request: Request, images: Sequence[Embedded], stored: Mapping[str, Vector], *, dim: int
) -> list[Query | Failure]:
    """Images first, then ids, then vectors, then the mix; `images` has the request's files, `stored` the ids found."""
    count = len(request.images)
    found: list[Query | Failure] = [
        image if isinstance(image, ImageError) else Query(image.embedding) for image in images[:count]
    ]
    for name in request.ids:
        vector = _stored(name, stored)
        found.append(vector if isinstance(vector, RequestError) else Query(vector, frozenset([name])))
    for vector in request.vectors:
        unit = _unit(vector, dim)
        found.append(unit if isinstance(unit, RequestError) else Query(unit))
    if request.mix is not None:
        found.append(_mixed(request.mix, iter(images[count:]), stored, dim=dim))
    return found


def _mixed(mix: Mix, images: Iterable[Embedded], stored: Mapping[str, Vector], *, dim: int) -> Query | Failure:
    files = iter(images)
    vectors: list[Vector] = []
    for example in mix.examples:
        one = _of_example(example, files, stored, dim)
        if isinstance(one, ValueError):
            return one
        vectors.append(one)
    count = len(mix.positives)
    stacked = np.stack(vectors).astype(np.float64)
    centre: NDArray[np.float64] = stacked[:count].mean(axis=0)
    if mix.negatives:
        centre = 2 * centre - stacked[count:].mean(axis=0)
    unit = _unit(centre, dim)
    if isinstance(unit, RequestError):
        return RequestError("positives and negatives cancel each other out: there is nothing left to look for")
    return Query(unit, frozenset(example for example in mix.examples if isinstance(example, str)))


def _of_example(
    example: object, files: "Iterable[Embedded]", stored: Mapping[str, Vector], dim: int
) -> Vector | Failure:
    if isinstance(example, bytes):
        image = next(iter(files))
        return image if isinstance(image, ImageError) else image.embedding
    if isinstance(example, str):
        return _stored(example, stored)
    assert isinstance(example, np.ndarray)
    return _unit(example, dim)


def _stored(name: str, stored: Mapping[str, Vector]) -> Vector | RequestError:
    return stored[name] if name in stored else RequestError(f"no item with id {name!r}", 404)


def _unit(vector: NDArray[np.floating], dim: int) -> Vector | RequestError:
    if vector.shape != (dim,):
        return RequestError(f"a vector has {vector.size} numbers; the release has {dim}")
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(norm) or norm == 0.0:
        return RequestError(f"a vector has norm {norm}; it must be finite and above 0")
    return (vector / norm).astype(np.float32)
