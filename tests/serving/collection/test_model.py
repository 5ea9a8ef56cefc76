import os
from pathlib import Path

import pytest

from tests.serving.collection.model import Model

STEPS = int(os.environ.get("COLLECTION_STEPS", "300"))


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf", "ivf_rabitq"])
def test_random_operations_answer_as_a_dictionary_and_numpy_would(tmp_path: Path, kind: str) -> None:
    model = Model(tmp_path, seed=1, kind=kind)
    model.run(STEPS)
    assert (
        min(model.counts[name] for name in ("write", "write_many", "search", "search_filtered", "compact", "facets"))
        > 0
    )
    assert model.recall > 0.9
    assert (model.approximate_answers > 0) == (kind != "exact")
