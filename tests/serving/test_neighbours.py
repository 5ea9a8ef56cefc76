from pathlib import Path

import numpy as np
import pytest

from serving.catalogue import Catalogue
from serving.neighbours import IndexUnusable, build_base, open_base
from tests.serving.test_catalogue import RELEASE, items, unit_vectors


@pytest.fixture
def filled(tmp_path: Path) -> Catalogue:
    catalogue = Catalogue(tmp_path, create=True)
    for part in range(5):
        catalogue.upsert(items(*[f"{part}-{n}" for n in range(100)]), unit_vectors(100, 32, seed=part), RELEASE)
    return catalogue


def test_search_equals_brute_force_in_float64(filled: Catalogue) -> None:
    build_base(filled, RELEASE)
    neighbours = open_base(filled, RELEASE)
    rows, vectors = zip(*filled.vectors(RELEASE), strict=True)
    queries = unit_vectors(40, 32, seed=99)
    scores = queries.astype(np.float64) @ np.stack(vectors).astype(np.float64).T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    found = neighbours.search(queries, 10)
    assert (found.rows == np.asarray(rows)[best]).all()
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, best, 1), atol=1e-6)


def test_k_beyond_the_collection_gives_all_of_it(filled: Catalogue) -> None:
    build_base(filled, RELEASE)
    assert open_base(filled, RELEASE).search(unit_vectors(2, 32), 10_000).rows.shape == (2, 500)


def test_a_base_that_misses_a_write_is_refused_until_it_is_built_again(filled: Catalogue) -> None:
    build_base(filled, RELEASE)
    filled.upsert(items("late"), unit_vectors(1, 32, seed=7), RELEASE)
    with pytest.raises(IndexUnusable, match=r"stands at write 5, the catalogue at 6"):
        open_base(filled, RELEASE)
    build_base(filled, RELEASE)
    assert len(open_base(filled, RELEASE)) == 501


def test_writes_to_another_release_leave_a_base_as_it_is(filled: Catalogue) -> None:
    build_base(filled, RELEASE)
    filled.upsert(items("0-0", "new"), unit_vectors(2, 32, seed=7), "b" * 64)
    assert len(open_base(filled, RELEASE)) == 500
    filled.keep_only(["0-1"])
    with pytest.raises(IndexUnusable, match=r"stands at write 5, the catalogue at 7"):
        open_base(filled, RELEASE)


def test_another_release_has_no_index(filled: Catalogue) -> None:
    build_base(filled, RELEASE)
    with pytest.raises(IndexUnusable, match="no index for release bbbb"):
        open_base(filled, "b" * 64)
    with pytest.raises(IndexUnusable, match="no vector"):
        build_base(filled, "b" * 64)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_base_is_refused(filled: Catalogue, damage: str) -> None:
    path = filled.folder / build_base(filled, RELEASE).file
    if damage == "flip":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
    with pytest.raises(IndexUnusable, match="missing or was altered"):
        open_base(filled, RELEASE)
