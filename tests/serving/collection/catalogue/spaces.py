"""What waits in a space of a test, and filling it."""

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.spaces import Space
from tests.serving.collection.examples import OTHER_RELEASE, unit_vectors


def waiting(catalogue: Catalogue, space: str = OTHER_RELEASE) -> list[str]:
    return [one.id for one in catalogue.spaces.pending(space, limit=1000)]


def fill_all(catalogue: Catalogue, space: str = OTHER_RELEASE, *, dim: int = 8) -> int:
    found = catalogue.spaces.pending(space, limit=1000)
    return catalogue.spaces.fill(
        space, [one.row for one in found], [one.sha256 for one in found], unit_vectors(len(found), dim)
    )


def space_of(catalogue: Catalogue, space: str = OTHER_RELEASE) -> Space:
    found = catalogue.spaces.get(space)
    assert found is not None
    return found
