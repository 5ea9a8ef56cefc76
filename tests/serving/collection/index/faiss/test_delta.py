import numpy as np

from serving.collection.index.faiss.delta import Delta
from tests.serving.collection.examples import unit_vectors


def test_it_holds_what_a_dictionary_would() -> None:
    random = np.random.default_rng(0)
    delta, oracle = Delta(), dict[int, np.ndarray]()
    for step in range(400):
        rows = np.sort(random.choice(150, random.integers(0, 12), replace=False))
        if random.random() < (0.3 if step % 100 < 60 else 0.8):
            delta.remove(rows.tolist())
            for row in rows.tolist():
                oracle.pop(row, None)
        else:
            vectors = unit_vectors(len(rows), 4, seed=step)
            delta.put(rows, vectors)
            oracle |= dict(zip(rows.tolist(), vectors, strict=True))
        assert sorted(delta.rows.tolist()) == sorted(oracle)
        for row, vector in zip(delta.rows.tolist(), delta.vectors, strict=True):
            np.testing.assert_array_equal(vector, oracle[row])


def test_its_room_follows_what_it_holds() -> None:
    delta = Delta()
    delta.put(np.arange(10_000), np.ones((10_000, 2), np.float32))
    assert delta._matrix.shape[0] <= 15_000
    delta.remove(range(9_990))
    assert sorted(delta.rows.tolist()) == list(range(9_990, 10_000))
    assert delta._matrix.shape[0] <= 64
    for turn in range(50):
        delta.put(np.arange(turn * 10, turn * 10 + 10), np.ones((10, 2), np.float32))
        delta.remove(range(turn * 10, turn * 10 + 10))
    assert delta._matrix.shape[0] <= 64
